"""Images of one output come from one kind of device, one precision and one set of weights around the source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from evaluations import QUICK, called, evaluated, pngs, refused, write_flow_run
from flow_runs import SCRATCH, as_trained, flow_config, write_run
from rendered_people import PEOPLE, write_people
from tiny_flux import write_tiny_flux

from training.errors import TrainingError
from training.evaluate.generate import Loaded, Sampling, source_facts
from training.evaluate.settings_file import check_loaded, check_settings
from training.model import build_model

ON_CPU = Loaded("cpu", "fp32", "0123", "64x16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "shards", PEOPLE[:2])


@pytest.fixture(scope="module")
def run(tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that generates latents of an autoencoder."""
    config = flow_config(None, None, {"scratch": SCRATCH | {"patch": None, "vae": str(tiny_flux / "vae")}})
    return write_run(tmp_path_factory.mktemp("flow") / "run", config, as_trained(build_model(config)))


@pytest.fixture(scope="module")
def first(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an evaluation."""
    output = tmp_path_factory.mktemp("evaluations") / "first"
    result = called(run, "--data", data, "--output", output, *QUICK)
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture
def output(first: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(first, tmp_path / "evaluation"))


def test_another_autoencoder_may_not_add_images_and_may_measure_those_that_are_there(
    output: Path, data: Path, run: Path, tmp_path: Path
) -> None:
    other = write_tiny_flux(tmp_path / "other", seed=1) / "vae"
    command = (run, "--data", data, "--output", output, *QUICK)
    complete = called(*command, "--base", other)
    assert complete.exit_code == 0, complete.output

    missing = next(pngs(output))
    content = missing.read_bytes()
    missing.unlink()
    said = refused(*command, "--base", other)
    assert f"{output} belongs to an evaluation with other settings:" in said
    assert [line.partition(":")[0] for line in said.splitlines() if line.startswith("- ")] == ["- 0-run.base"]
    assert not missing.exists()

    resumed = called(*command)
    assert resumed.exit_code == 0, resumed.output
    assert missing.read_bytes() == content


def test_images_of_another_device_and_precision_are_an_error_that_names_both(
    output: Path, data: Path, run: Path
) -> None:
    path = output / "settings.json"
    settings = json.loads(path.read_bytes())
    assert (settings["0-run.device"], settings["0-run.precision"]) == ("cpu", "fp32")
    path.write_text(json.dumps(settings | {"0-run.device": "cuda", "0-run.precision": "bf16"}))
    next(pngs(output)).unlink()
    said = refused(run, "--data", data, "--output", output, *QUICK)
    assert '- 0-run.device: "cuda" there, "cpu" now' in said
    assert '- 0-run.precision: "bf16" there, "fp32" now' in said
    assert "0-run.base" not in said


def test_an_output_without_an_image_takes_other_settings(tmp_path: Path, run: Path) -> None:
    source = source_facts(run, 0, (1, 3), Sampling())
    check_settings(tmp_path, (1, 5), [source], "dataset")
    check_settings(tmp_path, (1, 3), [source], "dataset")
    image = tmp_path / "images" / source.name / "key_0" / "inputs-1_target-5_sample-0.png"
    image.parent.mkdir(parents=True)
    image.touch()
    with pytest.raises(TrainingError, match=r"inputs: \[1, 3\] there, \[1, 5\] now"):
        check_settings(tmp_path, (1, 5), [source], "dataset")


def test_images_of_which_nothing_was_recorded_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    image = tmp_path / "images" / "0-run" / "key_0" / "inputs-1_target-5_sample-0.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    with pytest.raises(TrainingError, match=r'0-run\.device: null there, "cpu" now'):
        check_loaded(tmp_path, "0-run", [ON_CPU])
    check_loaded(tmp_path, "1-run", [ON_CPU])  # of this source there are none
    assert json.loads((tmp_path / "settings.json").read_bytes()) == {
        "1-run.device": "cpu",
        "1-run.precision": "fp32",
        "1-run.base": "0123",
        "1-run.noise": "64x16",
    }


def test_sources_of_one_size_whose_noise_has_another_shape_are_not_called_paired_by_noise(
    data: Path, run: Path, tmp_path: Path
) -> None:
    pixels = write_flow_run(tmp_path / "pixels")
    document = evaluated(run, pixels, run, "--data", data, "--output", tmp_path / "out", *QUICK)
    # Four channels at an eighth of the side, two by two to a token; or the pixels of patches of 4.
    assert [(source["side"], source["noise"]) for source in document["sources"]] == [
        *((64, "16x16"), (64, "256x48"), (64, "16x16"))
    ]
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "so they do not start from the same noise" in text
    assert "from the same inputs and targets." in text


def test_ranks_that_would_generate_differently_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"the ranks generate the images of 0-run with .*4567"):
        check_loaded(tmp_path, "0-run", [ON_CPU, ON_CPU, Loaded("cpu", "fp32", "4567", "64x16")])
    assert (tmp_path / "settings.json").read_text() == "{}"
