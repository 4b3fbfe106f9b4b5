"""The paper's baselines as representations: what they compute, what of them is trained, what their files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

from faces.align import ARCFACE_112, align_112
from faces.embed import SFace
from faces.registry import load_weights
from settings.section import ConfigError
from training.config import Config
from training.engine.flops import step_flops
from training.errors import TrainingError
from training.model import IdentityModel, build_model, meta_model
from training.models.clip import CLIP_MEAN, CLIP_STD, ClipTower
from training.models.sizes import SIZES
from training.representations.base import Inputs
from training.representations.build import load_representation
from training.representations.onnx_network import read_onnx
from training.representations.recogniser import CPU_BATCH, find_recogniser, load_recogniser, similarity

TINY = SIZES["tiny"]
PATCHES = TINY.patches + 1
SCRATCH = {"layers": 1, "single_layers": 1, "heads": 2, "head_width": 16, "patch": 4}
KINDS = ("clip", "arcface", "arcface_clip")
EYES_NOSE_MOUTH = np.array([[188, 112], [230, 104], [214, 137], [200, 160], [233, 154]], np.float32)
"""Of the astronaut of scikit-image, in pixels."""


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tower's weights, as a file of open_clip has them."""
    path = tmp_path_factory.mktemp("clip") / "tower.safetensors"
    torch.manual_seed(3)
    save_file(ClipTower(TINY).visual.state_dict(), path)
    return path


@pytest.fixture
def configured(clip_file: Path) -> Callable[..., Config]:
    def config(
        kind: str, *, decoders: Any = None, data: Any = None, batch: int = 256, run: Any = None, **more: Any
    ) -> Config:
        representation = {"kind": kind, "size": "tiny"}
        if "clip" in kind:
            representation["clip"] = str(clip_file)
        if "arcface" in kind:
            representation["recogniser"] = "sface"
        return Config.model_validate(
            {
                "output": "out",
                "data": {"root": "root"} | (data or {}),
                "representation": representation | more,
                "decoders": decoders or {"flow": {"scratch": SCRATCH, "side": 32}},
                "batch": batch,
                "run": {"precision": "fp32"} | (run or {}),
            }
        )

    return config


def faces(count: int = 2, side: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """The same face at other places of a picture, (1, M, S, S, 3), and its keypoints (1, M, 5, 2)."""
    images, points = [], []
    for number in range(count):
        left, top, width = 110 + 10 * number, 40, 200
        crop = Image.fromarray(skimage.data.astronaut()).crop((left, top, left + width, top + width))
        images.append(np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC)))
        points.append((EYES_NOSE_MOUTH + 0.5 - (left, top)) / width)
    return torch.from_numpy(np.stack(images))[None], torch.from_numpy(np.stack(points)).float()[None]


def inputs_of(count: int = 2, valid: torch.Tensor | None = None) -> Inputs:
    images, keypoints = faces(count)
    return Inputs(images, valid, keypoints)


def built(config: Config) -> IdentityModel:
    return build_model(config).eval()


def test_clip_gives_all_tokens_of_its_tower_and_those_of_all_images(configured) -> None:
    representation = built(configured("clip")).representation
    images, _ = faces(2, side=TINY.side)
    tokens = representation.encode(Inputs(images))
    assert tokens.shape == (1, 2 * PATCHES, TINY.width)
    visual = representation.clip.visual
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    pixels = (images[0].movedim(-1, 1) / 255 - mean) / std
    # open_clip's own way through the tower, up to its last norm.
    embedded = visual._embeds(pixels)
    expected = visual.ln_post(visual.transformer(embedded))
    torch.testing.assert_close(tokens[0], expected.flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_the_mean_of_clip_s_tokens_is_over_real_images(configured) -> None:
    representation = built(configured("clip", combine="mean", data={"inputs": [1, 2]})).representation
    one, two = inputs_of(1), inputs_of(2)
    padded = Inputs(two.images_BMSSC, torch.tensor([[True, False]]))
    torch.testing.assert_close(representation.encode(padded), representation.encode(one))
    assert representation.encode(two).shape == (1, PATCHES, TINY.width)


def test_a_recognition_network_gives_in_torch_what_onnxruntime_gives() -> None:
    recogniser = load_recogniser(find_recogniser("sface", None))
    embedder = SFace(load_weights(["sface"], None)["sface"].path)
    images, keypoints = faces(3, side=512)
    found = recogniser(images[0], keypoints[0]).numpy()
    for number in range(3):
        image, points = images[0, number].numpy(), keypoints[0, number].numpy() * 512 - 0.5
        (expected,) = embedder.embed([align_112(image, points)])
        assert found[number] @ expected > 0.995
    # The network itself, on one aligned face.
    aligned = recogniser.aligned(images[0, :1], keypoints[0, :1])
    face = (aligned[0].movedim(0, -1) * 255).round().byte().numpy()
    (expected,) = embedder.embed([face])
    assert found[0] @ expected > 0.9995


def test_many_faces_are_embedded_as_each_alone() -> None:
    """On a CPU, they are embedded in parts; the last one here has a single face."""
    recogniser = load_recogniser(find_recogniser("sface", None))
    images, keypoints = faces(CPU_BATCH + 1)
    found = recogniser(images[0], keypoints[0])
    alone = [recogniser(images[0, n : n + 1], keypoints[0, n : n + 1]) for n in range(CPU_BATCH + 1)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[CPU_BATCH], atol=1e-2)


def test_faces_are_warped_to_the_template() -> None:
    points = torch.from_numpy(EYES_NOSE_MOUTH)[None]
    matrix = similarity(points, torch.from_numpy(ARCFACE_112)[None])
    moved = points @ matrix[:, :, :2].mT + matrix[:, :, 2][:, None]
    assert (moved[0] - torch.from_numpy(ARCFACE_112)).norm(dim=1).max() < 8
    assert torch.linalg.det(matrix[0, :, :2]) > 0


@pytest.mark.weights
def test_another_network_from_a_file(weights: Path) -> None:
    import onnxruntime

    path = weights / "MobileFaceNet_foamliu.onnx"
    network = read_onnx(path)
    images = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input0": images.numpy()})
    with torch.no_grad():
        assert np.abs(network(images).numpy() - expected).max() < 1e-4
        assert network(images.expand(3, -1, -1, -1)).shape == (3, 128)


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Erf", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="the operators Erf are not known"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("operator", "given", "message"),
    [
        ("Relu", {"alpha": 0.1}, "the attribute alpha of the operator Relu is not known"),
        (
            "Conv",
            {"auto_pad": "SAME_UPPER"},
            "auto_pad of the operator Conv is b'SAME_UPPER', and only b'NOTSET'",
        ),
        ("Flatten", {"axis": 2}, "axis of the operator Flatten is 2, and only 0 or 1 is known"),
        ("Reshape", {"allowzero": 1}, "allowzero of the operator Reshape is 1, and only 0 is known"),
    ],
)
def test_an_attribute_that_is_not_computed_is_named_with_its_operator(
    tmp_path: Path, operator: str, given: dict[str, Any], message: str
) -> None:
    import onnx
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"][: 1 + (operator in {"Conv", "Reshape"})], ["y"], **given)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=message):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 1), (1, 3, 1, 1), (3, 4, 5)])
def test_a_slope_of_prelu_may_have_any_shape_that_fits(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    slope = numpy_helper.from_array(generator.uniform(0.1, 0.9, shape).astype(np.float32), "slope")
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "slope"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 4, 5])],
        [slope],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)
    images = generator.normal(size=(2, 3, 4, 5)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": images})
    assert np.array_equal(read_onnx(path)(torch.from_numpy(images)).numpy(), expected)


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"net\.onnx is no ONNX file"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("kind", "tokens", "width"),
    [("arcface", TINY.queries, 512), ("arcface_clip", TINY.queries, TINY.width)],
)
def test_the_order_and_number_of_images_are_free(configured, kind: str, tokens: int, width: int) -> None:
    representation = built(configured(kind)).representation
    two = inputs_of(2)
    found = representation.encode(two)
    assert found.shape == (1, tokens, width)
    turned = Inputs(two.images_BMSSC.flip(1), None, two.keypoints_BMK2.flip(1))
    torch.testing.assert_close(representation.encode(turned), found, rtol=1e-4, atol=1e-4)
    padded = Inputs(two.images_BMSSC, torch.tensor([[True, False]]), two.keypoints_BMK2)
    one = representation.encode(inputs_of(1))
    torch.testing.assert_close(representation.encode(padded), one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one, found, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        ("clip", set()),
        ("arcface", {"projection"}),
        ("arcface_clip", {"projection", "widen", "cross", "norm"}),
    ],
)
def test_what_is_pretrained_is_never_trained(configured, make_batch, kind: str, trained: set[str]) -> None:
    model = build_model(configured(kind, data={"inputs": 2, "targets": 2}))
    names = {
        name.split(".")[0] for name, weight in model.representation.named_parameters() if weight.requires_grad
    }
    assert names == trained
    assert model.frozen == (not trained)
    assert model.frozen_digests["representation"]
    batch = make_batch(people=2, inputs=2, targets=2, side=256)
    keypoints = torch.from_numpy(ARCFACE_112 / 112)[None, None].expand(2, 8, -1, -1)
    model(replace(batch, keypoints_BKP2=keypoints)).sum().backward()
    for weight in model.representation.parameters():
        assert (weight.grad is not None) == weight.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_representation_comes_back_from_its_files(configured, tmp_path: Path, kind: str) -> None:
    representation = built(configured(kind)).representation
    representation.crop_scale = 1.4
    representation.save_pretrained(tmp_path)
    again = load_representation(tmp_path).eval()
    assert again.crop_scale == 1.4
    with torch.no_grad():
        assert torch.equal(again.encode(inputs_of()), representation.encode(inputs_of()))
    # As the start of another run, which finds out what it is.
    model = build_model(configured(kind, weights=str(tmp_path)))
    with torch.no_grad():
        assert torch.equal(
            model.eval().representation.encode(inputs_of()), representation.encode(inputs_of())
        )
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(
        TrainingError, match=rf"is a representation of kind {kind}, and representation.kind is {other}"
    ):
        meta_model(configured(other, weights=str(tmp_path)))


def test_what_does_not_fit_is_refused_with_its_key(configured) -> None:
    for arguments, message in (
        ({"kind": "clip", "data": {"inputs": [1, 3]}}, "needs a fixed number of inputs"),
        ({"kind": "arcface", "data": {"flip": 0.5}}, "data.flip: faces are aligned by the landmarks"),
        (
            {"kind": "arcface_clip", "combine": "mean"},
            "combine: .*kind=arcface_clip takes any number",
        ),
        ({"kind": "clip", "clip": "random"}, "is made of CLIP's pretrained weights"),
        ({"kind": "arcface", "frozen_tower": True}, "frozen_tower: .*kind=arcface has no CLIP tower"),
    ):
        with pytest.raises(ValueError, match=message):
            configured(**arguments)
    with pytest.raises(ConfigError, match=r"decoders\.mtd: it attends to identity tokens of 128 channels"):
        build_model(configured("arcface", decoders={"mtd": {}}))
    with pytest.raises(
        ConfigError, match=r"representation\.recogniser: yunet is no network that embeds faces"
    ):
        build_model(configured("arcface", recogniser="yunet"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_of_a_step_is_counted(configured, kind: str) -> None:
    """On shapes alone, as a run on a GPU does before its first step."""
    config = configured(kind, data={"inputs": 2, "targets": 2}, batch=2, run={"per_process": 2})
    assert step_flops(config) > 1e6


def test_a_network_that_is_another_one_now_is_refused(configured, tmp_path: Path) -> None:
    built(configured("arcface")).representation.save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | {"recogniser_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="trained on sface with sha256 000"):
        load_representation(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(
        TrainingError, match=r"trained with combine=mean, and representation\.combine is concat"
    ):
        meta_model(configured("arcface", weights=str(tmp_path), combine="concat"))


def test_mtd_takes_the_tokens_of_clip_and_of_both(configured) -> None:
    for kind in ("clip", "arcface_clip"):
        model = meta_model(configured(kind, decoders={"mtd": {}}))
        assert model.needs.masks
        assert model.needs.keypoints == (kind == "arcface_clip")
