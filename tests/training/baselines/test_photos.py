"""Every kind of representation encodes photographs and generates images of their person."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import FIXED, FREE, PHOTOS, Exported, called
from flow_runs import SIDE
from PIL import Image
from safetensors import safe_open

from faces.portraits import Portrait
from faces.registry import load_weights
from omniid import load_representation
from training.representations.base import Inputs
from training.representations.module import IMAGES_AT_ONCE

pytestmark = pytest.mark.slow


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_encode_writes_the_tokens_of_the_faces_in_photographs(
    exported: Exported, portraits: list[Portrait], models_dir: Path, tmp_path: Path
) -> None:
    case, output = exported.case, tmp_path / "person.safetensors"
    result = called("encode", *PHOTOS, "--encoder", exported.folder, "-o", output, "--models-dir", models_dir)
    assert result.exit_code == 0, result.output
    with safe_open(output, "pt") as file:
        tokens, facts = file.get_tensor("tokens"), json.loads(file.metadata()["omniid"])
    assert tokens.shape == (case.tokens, case.width)
    representation = load_representation(exported.folder / "encoder", models_dir).eval()
    assert torch.equal(tokens, representation.encode_portraits(portraits))
    assert facts["representation"] == case.representation["kind"]
    sface = load_weights(["sface"], None)["sface"].sha256
    assert facts.get("recogniser_sha256") == (sface if "arcface" in case.representation["kind"] else None)
    # Of both photographs, and in their order only where the tokens of each are kept apart.
    turned = representation.encode_portraits(portraits[::-1])
    assert torch.allclose(turned, tokens, atol=1e-4) != case.fixed
    one_twice = representation.encode_portraits([portraits[0], portraits[0]])
    assert (one_twice - tokens).abs().max() > 1e-3


def test_a_run_and_its_export_generate_the_same_image(
    exported: Exported, models_dir: Path, tmp_path: Path
) -> None:
    images = []
    for source in (exported.run, exported.folder):
        output = tmp_path / source.name
        result = called(
            "sample", source, *PHOTOS, "-o", output, "--count", 1, "--steps", 2, "--models-dir", models_dir
        )
        assert result.exit_code == 0, result.output
        images.append(pixels_of(output / "sample-0.png"))
    assert images[0].shape == (SIDE, SIDE, 3)
    assert np.array_equal(*images)
    if exported.case.fixed:
        return
    result = called("sample", exported.run, PHOTOS[0], "-o", tmp_path, "--count", 1, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert np.abs(pixels_of(tmp_path / "sample-0.png") - images[0]).max() > 1


@pytest.mark.parametrize("exported", FIXED, indirect=True)
@pytest.mark.parametrize("photos", [1, 3])
def test_another_number_of_photographs_than_concat_was_trained_on_is_an_error_that_names_it(
    exported: Exported, models_dir: Path, tmp_path: Path, photos: int
) -> None:
    third = Path(shutil.copy(PHOTOS[0], tmp_path / "third.png"))
    given = [*PHOTOS, third][:photos]
    for command in (
        ("encode", *given, "--encoder", exported.folder, "-o", tmp_path / "x.safetensors"),
        ("sample", exported.folder, *given, "-o", tmp_path / "x"),
    ):
        result = called(*command, "--models-dir", models_dir)
        assert result.exit_code == 1
        assert "takes exactly 2 images of a person" in result.output
        assert f"given: {photos}" in result.output
    assert not (tmp_path / "x.safetensors").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("exported", FREE, indirect=True)
def test_memory_is_bounded_by_the_images_that_the_networks_see_at_once(
    exported: Exported, portraits: list[Portrait], models_dir: Path
) -> None:
    representation = load_representation(exported.folder / "encoder", models_dir).eval()
    count = 2 * IMAGES_AT_ONCE + 3
    images = torch.from_numpy(np.stack([portraits[number % 2].image for number in range(count)]))
    keypoints = torch.from_numpy(np.stack([portraits[number % 2].keypoints for number in range(count)]))
    seen: list[int] = []
    part = representation.clip if hasattr(representation, "clip") else representation.recogniser
    part.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    found = representation.encode_images(images, keypoints)
    assert seen == [IMAGES_AT_ONCE, IMAGES_AT_ONCE, 3]
    with torch.no_grad():
        (at_once,) = representation.encode(Inputs(images[None], None, keypoints[None]))
    assert seen[3:] == [count]
    assert torch.allclose(found, at_once, atol=1e-4)
