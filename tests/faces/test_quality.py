"""Quality scores order images as people would, and depend on the image alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from faces.profiles import load_quality
from faces.quality import BATCH, Piqe, TopiqFace, brightness, sharpness
from faces.types import Image

WHOLE = np.array([0, 0, 512, 512], np.float32)


@pytest.fixture(scope="module")
def portrait() -> Image:
    """A photograph of a person, 512 x 512."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="module")
def spoiled(portrait: Image) -> dict[str, Image]:
    noise = np.random.default_rng(0).normal(0, 25, portrait.shape)
    return {
        "blurred": cv2.GaussianBlur(portrait, (0, 0), 4),
        "noisy": np.clip(portrait + noise, 0, 255).astype(np.uint8),
        "blocky": cv2.imdecode(
            cv2.imencode(".jpg", portrait, [cv2.IMWRITE_JPEG_QUALITY, 5])[1], cv2.IMREAD_COLOR
        ),
    }


@pytest.fixture
def two_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_sharpness_falls_with_blur_and_is_zero_without_detail(portrait: Image):
    blurred = [cv2.GaussianBlur(portrait, (0, 0), sigma) for sigma in (2, 4, 8)]
    values = [sharpness(image, WHOLE) for image in [portrait, *blurred]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * values[1]
    assert sharpness(np.full((512, 512, 3), 90, np.uint8), WHOLE) == 0.0


def test_sharpness_compares_faces_of_different_size(portrait: Image):
    halved = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    assert sharpness(halved, WHOLE / 2) == pytest.approx(sharpness(portrait, WHOLE), rel=0.05)
    upscaled = cv2.resize(cv2.resize(portrait, (40, 40)), (512, 512), interpolation=cv2.INTER_CUBIC)
    assert sharpness(upscaled, WHOLE) < 0.2 * sharpness(portrait, WHOLE)


def test_sharpness_sees_the_box_alone(portrait: Image):
    image = np.full((512, 1024, 3), 60, np.uint8)
    image[:, :512] = portrait
    assert sharpness(image, WHOLE) == sharpness(portrait, WHOLE)
    assert sharpness(image, np.array([600, 100, 900, 400], np.float32)) == 0.0


def test_brightness_is_the_mean_luma_of_the_box():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = (255, 0, 0)
    assert brightness(image, np.array([50, 0, 100, 100], np.float32)) == 76.0  # 0.299 * 255
    assert brightness(image, np.array([0, 0, 100, 100], np.float32)) == 38.0
    assert brightness(image, np.array([0, 0, 50, 100], np.float32)) == 0.0


@pytest.mark.parametrize("measure", [sharpness, brightness])
def test_a_box_is_cut_at_the_pictures_edge_and_rejected_outside_it(measure, portrait: Image):
    inside = np.array([0, 0, 200, 200], np.float32)
    beyond = np.array([-50, -80, 200, 200], np.float32)
    assert measure(portrait, beyond) == measure(portrait, inside)
    with pytest.raises(ValueError, match="no pixel in an image of 512 x 512"):
        measure(portrait, np.array([600, 600, 700, 700], np.float32))


@pytest.mark.slow
class TestPiqe:
    @pytest.fixture(scope="class")
    def piqe(self) -> Any:
        metric = load_quality("piqe", {})
        assert isinstance(metric, Piqe)
        return metric

    def test_a_spoiled_portrait_scores_worse(self, piqe: Piqe, portrait: Image, spoiled: dict[str, Image]):
        assert not piqe.higher_is_better
        good, *bad = piqe.score([portrait, *spoiled.values()])
        assert 0 < good < 60
        assert min(bad) > good + 10

    def test_a_score_does_not_depend_on_the_images_beside_it(
        self, piqe: Piqe, portrait: Image, spoiled: dict[str, Image]
    ):
        together = piqe.score([portrait, *spoiled.values()])
        alone = [piqe.score([image])[0] for image in (portrait, *spoiled.values())]
        assert together.tolist() == alone

    def test_a_score_does_not_depend_on_the_threads_of_the_process(
        self, piqe: Piqe, portrait: Image, two_threads: None
    ):
        import torch

        on_two = piqe.score([portrait])
        torch.set_num_threads(1)
        assert piqe.score([portrait]).tolist() == on_two.tolist()

    def test_it_equals_pyiqas_own_metric(self, piqe: Piqe, portrait: Image, spoiled: dict[str, Image]):
        import pyiqa
        import torch

        reference = pyiqa.create_metric("piqe", device=torch.device("cpu"))
        for image in (portrait, *spoiled.values()):
            tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            assert piqe.score([image])[0] == pytest.approx(float(reference(tensor)), abs=1e-4)

    def test_plain_colours_get_the_worst_score(self, piqe: Piqe):
        plain = [np.full((512, 512, 3), value, np.uint8) for value in (0, 1, 128, 255)]
        assert piqe.score(plain).tolist() == [100.0] * 4

    def test_an_image_of_another_size_is_rejected(self, piqe: Piqe):
        with pytest.raises(ValueError, match=r"\(512, 512, 3\)"):
            piqe.score([np.zeros((256, 256, 3), np.uint8)])


@pytest.mark.slow
class TestTopiqFace:
    """TOPIQ's network with seeded random weights: what is tested is how it is built and run."""

    @pytest.fixture(scope="class")
    def reference(self) -> Any:
        """pyiqa's own network for faces; only its face detector and parser, which download, are left out."""
        import torch
        from pyiqa.archs import topiq_arch
        from pyiqa.default_model_configs import DEFAULT_CONFIGS

        options = dict(DEFAULT_CONFIGS["topiq_nr-face"]["metric_opts"])
        assert options.pop("type") == "CFANet"
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(topiq_arch, "FaceRestoreHelper", lambda *args, **kwargs: None)
            torch.manual_seed(0)
            network = topiq_arch.CFANet(
                **options, align_crop_face=False, pretrained=False, backbone_pretrain=False
            )
        # Statistics of a trained network: untouched ones leave the scores of all images nearly alike.
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                if name.endswith("running_var"):
                    buffer.fill_(0.3)
        return network.eval()

    @pytest.fixture(scope="class")
    def checkpoint(self, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        import torch

        path = tmp_path_factory.mktemp("topiq") / "random.pth"
        torch.save({"params": reference.state_dict()}, path)
        return path

    @pytest.fixture(scope="class")
    def topiq(self, checkpoint: Path) -> TopiqFace:
        return TopiqFace(checkpoint)

    def test_it_equals_pyiqas_own_network(
        self, topiq: TopiqFace, reference: Any, portrait: Image, spoiled: dict[str, Image]
    ):
        import torch

        images = [portrait, spoiled["noisy"]]
        ours = topiq.score(images)
        assert ours[0] != ours[1]
        for image, score in zip(images, ours, strict=True):
            with torch.inference_mode():
                theirs = reference(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
            assert score == pytest.approx(float(theirs), rel=1e-5)

    def test_a_score_does_not_depend_on_the_images_beside_it(
        self, topiq: TopiqFace, portrait: Image, spoiled: dict[str, Image]
    ):
        together = topiq.score([portrait, spoiled["noisy"], spoiled["blurred"]])
        assert len(set(together.tolist())) == 3
        assert topiq.score([spoiled["blurred"], portrait]).tolist() == together[[2, 0]].tolist()

    @pytest.mark.parametrize("size", [2, 4])
    def test_a_padded_batch_gives_each_image_its_own_score(
        self, topiq: TopiqFace, portrait: Image, spoiled: dict[str, Image], size: int
    ):
        images = [portrait, spoiled["noisy"], spoiled["blurred"]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(BATCH, "cpu", size)
            padded = topiq.score(images)
            # The same place in the batch, other neighbours: not even the last bit changes.
            assert topiq.score([spoiled["noisy"]] * 2 + [spoiled["blurred"]])[2] == padded[2]
            assert topiq.score([portrait])[0] == padded[0]
        np.testing.assert_allclose(padded, topiq.score(images), rtol=1e-5)
        assert len(padded) == 3

    def test_a_score_does_not_depend_on_the_threads_of_the_process(
        self, topiq: TopiqFace, portrait: Image, two_threads: None
    ):
        import torch

        on_two = topiq.score([portrait])
        assert torch.get_num_threads() == 2, "the caller's threads are left as they were"
        torch.set_num_threads(1)
        assert topiq.score([portrait]).tolist() == on_two.tolist()

    def test_a_checkpoint_that_could_run_code_is_rejected(self, tmp_path: Path):
        import torch

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "ran",))

        torch.save({"params": Evil()}, tmp_path / "evil.pth")
        with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
            TopiqFace(tmp_path / "evil.pth")
        assert not (tmp_path / "ran").exists()

    def test_a_checkpoint_of_another_network_is_rejected(self, tmp_path: Path):
        import torch

        torch.save({"params": {"weight": torch.zeros(3)}}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="does not fit TOPIQ's network"):
            TopiqFace(tmp_path / "other.pth")
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(ValueError, match="no dictionary `params`"):
            TopiqFace(tmp_path / "list.pth")
        (tmp_path / "noise.pth").write_bytes(b"noise")
        with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
            TopiqFace(tmp_path / "noise.pth")

    def test_an_unusable_device_is_rejected(self, checkpoint: Path):
        import torch

        with pytest.raises(ValueError, match="'gpu' is not one of cpu, cuda"):
            TopiqFace(checkpoint, device="gpu")
        if not torch.cuda.is_available():
            with pytest.raises(RuntimeError, match="torch sees no CUDA device"):
                TopiqFace(checkpoint, device="cuda")


def test_a_box_of_a_single_column_has_a_sharpness(portrait: Image):
    assert sharpness(portrait, np.array([100.0, 100.0, 100.5, 400.0], np.float32)) > 0
