"""`omniid sample` and `omniid export`: from photographs and a run to images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from control_runs import control_run
from flow_runs import SCRATCH, as_trained, decoder_of, flow_config, write_run
from PIL import Image
from tiny_flux import write_tiny_flux
from tiny_models import mtd_config
from typer.testing import CliRunner, Result

from faces.align import LANDMARKS
from faces.photograph import read_photograph
from omniid import find_portraits
from pipeline.demo.photographs import PEOPLE, STILL_LIFE, package_file
from shards.schema import IMAGE_SIDE
from training.cli import app
from training.errors import TrainingError
from training.export import read_trained
from training.model import IdentityModel, build_model
from training.sampling.photographs import PhotoFace, find_faces
from training.sampling.sampler import Sampler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def astronaut() -> Path:
    return package_file(*PEOPLE["astronaut"].source)


@pytest.fixture(scope="module")
def group() -> Path:
    return package_file(*PEOPLE["group-1"].source)


@pytest.fixture(scope="module")
def model(tiny_flux: Path, prompts: Path) -> IdentityModel:
    return as_trained(build_model(flow_config(tiny_flux, prompts)))


@pytest.fixture(scope="module")
def run(model: IdentityModel, tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, flow_config(tiny_flux, folder), model)


@pytest.fixture(autouse=True)
def _prompts_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_control_run_is_sampled_in_the_pose_of_another_photograph(
    astronaut: Path, group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = control_run(tmp_path, {"scratch": SCRATCH}, flow_config(None, None))
    posed: list[np.ndarray] = []
    generate = Sampler.generate

    def noted(self: Sampler, *arguments: Any, **named: Any) -> Any:
        posed.append(named["landmarks"])
        return generate(self, *arguments, **named)

    monkeypatch.setattr(Sampler, "generate", noted)
    images = []
    for photo in (astronaut, group):
        output = tmp_path / f"out-{len(images)}"
        result = called("sample", run, astronaut, "--pose-from", photo, "-o", output, "--steps", 1)
        assert result.exit_code == 0, result.output
        images.append(np.asarray(Image.open(output / "sample-0.png")).astype(int))
        # In pixels of the portrait, whose keypoints are some of the landmarks.
        portrait = find_portraits(photo, crop_scale=1.6)[0]
        keypoints = (posed[-1][list(LANDMARKS)] + 0.5) / IMAGE_SIDE
        assert np.allclose(keypoints, portrait.keypoints, atol=1e-4)
    assert np.abs(images[0] - images[1]).max() > 3


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def faces_of(photographs: list[Path], message=print, **options: float) -> list[PhotoFace]:
    return find_faces(photographs, message, **options)


def generated(
    model: IdentityModel | Sampler, images: list[np.ndarray], seed: int = 0, **options
) -> np.ndarray:
    """An image of the person of whom these are images."""
    sampler = model if isinstance(model, Sampler) else Sampler(model)
    (image,) = sampler.generate(sampler.encode(images), [seed], **options)
    return image


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_photographs_become_images_and_the_same_command_the_same_images(
    run, astronaut, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        result = called(
            "sample", run, astronaut, "-o", tmp_path / folder, "--count", 2, "--seed", 5, "--steps", 2
        )
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["sample-5.png", "sample-6.png"]
    first, second = (pixels_of(tmp_path / "one" / name) for name in names)
    assert first.shape == (64, 64, 3)
    assert np.abs(first - second).max() > 3
    assert np.array_equal(first, pixels_of(tmp_path / "two" / "sample-5.png"))


def test_an_export_generates_what_its_run_does(run, astronaut, tmp_path: Path) -> None:
    first_line = called("export", run, tmp_path / "exported").output.splitlines()[0]
    assert first_line.endswith("the weights after 3 steps")
    for source, folder in ((run, "run"), (tmp_path / "exported", "export")):
        result = called("sample", source, astronaut, "-o", tmp_path / folder, "--count", 1, "--steps", 2)
        assert result.exit_code == 0, result.output
    assert np.array_equal(
        pixels_of(tmp_path / "run/sample-0.png"), pixels_of(tmp_path / "export/sample-0.png")
    )


@pytest.mark.parametrize(
    "option",
    [("--guidance", 9), ("--scale", 0), ("--steps", 3), ("--size", 32)],
    ids=lambda option: option[0],
)
def test_an_option_changes_the_image(run, astronaut, tmp_path: Path, option) -> None:
    for folder, options in (("plain", ()), ("other", option)):
        steps = () if "--steps" in options else ("--steps", 2)
        result = called("sample", run, astronaut, "-o", tmp_path / folder, "--count", 1, *steps, *options)
        assert result.exit_code == 0, result.output
    plain, other = (pixels_of(tmp_path / folder / "sample-0.png") for folder in ("plain", "other"))
    assert plain.shape != other.shape or np.abs(plain - other).max() > 1


def test_the_steps_and_guidance_of_the_run_are_the_defaults(model) -> None:
    crop = np.full((512, 512, 3), 90, dtype=np.uint8)
    default = generated(model, [crop], 1)
    assert np.array_equal(default, generated(model, [crop], 1, steps=28, guidance=3.5, side=64))


def test_more_photographs_change_the_image_and_their_order_does_not(model, astronaut, group) -> None:
    one, other = (face.portrait.image for face in faces_of([astronaut, group]))
    alone, both, turned = (
        generated(model, images, steps=2).astype(int) for images in ([one], [one, other], [other, one])
    )
    assert np.abs(alone - both).max() > 1
    assert np.abs(turned - both).max() <= 1


def test_the_encoder_sees_what_the_dataset_would_hold(astronaut, monkeypatch, model) -> None:
    """The crop that the pipeline's own parts make, reduced on the device as in training."""
    from faces.portraits import PortraitFinder
    from training.models.pixels import pixels

    (portrait,) = PortraitFinder.load("embedded").find(read_photograph(astronaut))
    (face,) = faces_of([astronaut])
    assert np.array_equal(face.portrait.image, portrait.image)
    seen: list[torch.Tensor] = []
    model.representation.clip.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    Sampler(model).encode([portrait.image])
    assert torch.equal(seen[0][0], pixels(torch.from_numpy(portrait.image), model.representation.size.side))


def test_of_several_faces_the_largest_is_taken_and_said(group) -> None:
    said: list[str] = []
    faces_of([group], said.append)
    assert "shows 6 faces. The largest is used, the face of " in said[0]
    assert said[0].count("px at") == 6


def test_a_photograph_without_a_face_is_named(astronaut, run, tmp_path: Path) -> None:
    (package, path), (left, top, right, bottom) = STILL_LIFE
    still_life = tmp_path / "table.png"
    Image.fromarray(read_photograph(package_file(package, path))[top:bottom, left:right]).save(still_life)
    result = called("sample", run, astronaut, still_life, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: {still_life} shows no face" in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_photograph_is_named(run, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear Anna")
    result = called("sample", run, tmp_path / "letter.jpg", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "letter.jpg" in result.output
    assert "Traceback" not in result.output


def test_a_run_of_the_masked_transformer_decoder_cannot_generate_and_that_is_named(tmp_path: Path) -> None:
    config = mtd_config()
    run = write_run(tmp_path, config, build_model(config))
    with pytest.raises(TrainingError, match=r"has neither a flow nor a control decoder: it cannot generate"):
        Sampler.load(read_trained(run), CPU)


def test_another_flux_than_in_training_is_refused(run, tmp_path: Path, tiny_flux) -> None:
    from diffusers import FluxTransformer2DModel

    other = Path(shutil.copytree(tiny_flux, tmp_path / "other"))
    shutil.rmtree(other / "transformer")
    config = dict(FluxTransformer2DModel.load_config(tiny_flux, subfolder="transformer")) | {
        "num_attention_heads": 4
    }
    FluxTransformer2DModel.from_config(config).save_pretrained(other / "transformer")
    with pytest.raises(TrainingError, match=r"was not trained on this FLUX .* of another shape"):
        Sampler.load(read_trained(run), CPU, base=str(other))


def test_another_flux_of_the_same_shape_is_used_with_a_warning(
    run, astronaut, tmp_path: Path, tiny_flux
) -> None:
    trained = read_trained(run)
    usual = decoder_of(Sampler.load(trained, CPU).model).frozen_digest
    said: list[str] = []
    known = replace(trained, facts=trained.facts.model_copy(update={"flow_digest": usual}))
    Sampler.load(known, CPU, base=str(tiny_flux), say=said.append)
    assert not said
    other = write_tiny_flux(tmp_path / "other", seed=1)
    Sampler.load(known, CPU, base=str(other), say=said.append)
    assert said == [f"warning: this FLUX ({other}) has other weights than in the training of {run}"]


def test_faces_are_cropped_as_those_of_the_dataset_were(run, astronaut, tmp_path: Path) -> None:
    """Tight crops in training, tight crops here."""
    tight = Path(shutil.copytree(run, tmp_path / "tight"))
    facts = json.loads((tight / "run.json").read_text()) | {"crop_scale": 1.1}
    (tight / "run.json").write_text(json.dumps(facts))
    usual, other = tmp_path / "a", tmp_path / "b"
    for folder, source in ((usual, run), (other, tight)):
        result = called("sample", source, astronaut, "-o", folder, "--steps", 2)
        assert result.exit_code == 0, result.output
    assert not np.array_equal(pixels_of(usual / "sample-0.png"), pixels_of(other / "sample-0.png"))
    wide, narrow = (faces_of([astronaut], crop_scale=scale)[0].portrait.image for scale in (1.6, 1.1))
    sampler = Sampler.load(read_trained(tight), CPU)
    assert np.array_equal(generated(sampler, [narrow], steps=2), pixels_of(other / "sample-0.png"))
    assert not np.array_equal(wide, narrow)


def test_identity_can_be_exaggerated_and_the_run_says_how_much_is_usual(
    tiny_flux, astronaut, tmp_path: Path
) -> None:
    config = flow_config(
        tiny_flux, tmp_path, {"identity_dropout": 0.1, "sample_identity_guidance": 3.0, "sample_steps": 2}
    )
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    images = {}
    for given in ((), ("--identity-guidance", 3), ("--identity-guidance", 1)):
        result = called("sample", run, astronaut, "-o", tmp_path / "out", "--count", 1, *given)
        assert result.exit_code == 0, result.output
        images[given] = pixels_of(tmp_path / "out" / "sample-0.png")
    usual, three, one = images.values()
    assert np.array_equal(usual, three)
    assert not np.array_equal(usual, one)


def test_what_a_transformer_was_never_trained_for_is_refused_and_not_ignored(model, tmp_path: Path) -> None:
    portrait = [np.zeros((512, 512, 3), dtype=np.uint8)]
    with pytest.raises(
        TrainingError, match=r"needs a run that was trained with decoders\.flow\.identity_dropout"
    ):
        generated(model, portrait, identity_guidance=2.0)
    config = flow_config(None, None)
    own = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    with pytest.raises(
        TrainingError, match=r"--guidance: .* no guidance input; only FLUX\.1-dev has one\. Leave it out"
    ):
        generated(Sampler.load(read_trained(own), CPU), portrait, guidance=2.0)
    with pytest.raises(
        TrainingError, match=r"--base: .* generates plain pixels, without FLUX\. Leave it out"
    ):
        Sampler.load(read_trained(own), CPU, base="flux")


def test_a_size_that_flux_cannot_generate_is_refused(model) -> None:
    with pytest.raises(
        TrainingError, match=r"images of 40 pixels cannot be generated\. Pass a multiple of 16"
    ):
        generated(model, [np.zeros((512, 512, 3), dtype=np.uint8)], side=40)


@pytest.mark.parametrize("command", [("sample",), ("export",)])
def test_an_output_that_is_a_file_is_refused_before_anything_is_generated(
    run, astronaut, tmp_path: Path, command
) -> None:
    (tmp_path / "file").write_text("")
    place = ("-o", tmp_path / "file") if command == ("sample",) else (tmp_path / "file",)
    result = called(*command, run, *([astronaut] if command == ("sample",) else []), *place)
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'file'} cannot be written to: File exists" in result.output


def test_a_device_that_is_not_there_is_named(run, astronaut, tmp_path: Path) -> None:
    result = called("sample", run, astronaut, "-o", tmp_path / "out", "--device", "toaster")
    assert "error: --device: toaster is no device. Pass cuda or cpu" in result.output
