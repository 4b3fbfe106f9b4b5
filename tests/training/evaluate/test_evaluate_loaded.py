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
from training.evaluate.generate import Loaded
from training.evaluate.settings_file import check_loaded, check_settings
from training.model import build_model

ON_CPU = Loaded("cpu", "fp32", "0123", "64x16")
SETTINGS = {"inputs": [1, 5], "dataset": "d", "0-run.side": 64}


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


def test_settings_are_written_before_the_first_image_and_not_earlier(tmp_path: Path) -> None:
    check_settings(tmp_path, SETTINGS, ["0-run"])
    assert not any(tmp_path.iterdir())
    check_loaded(tmp_path, SETTINGS, "0-run", [ON_CPU])
    others = SETTINGS | {"inputs": [1, 3]}
    for check in (
        lambda: check_settings(tmp_path, others, ["0-run"]),
        lambda: check_loaded(tmp_path, others, "0-run", [ON_CPU]),  # begun before the first one's first image
    ):
        with pytest.raises(TrainingError, match=r"inputs: \[1, 5\] there, \[1, 3\] now"):
            check()
    assert json.loads((tmp_path / "settings.json").read_bytes()) == SETTINGS | {
        "0-run.device": "cpu", "0-run.precision": "fp32", "0-run.base": "0123", "0-run.noise": "64x16",
    }  # fmt: skip


def test_a_settings_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"editor.tabSize": 4}')
    with pytest.raises(TrainingError, match="belongs to an evaluation with other settings"):
        check_settings(tmp_path, SETTINGS, ["0-run"])
    assert (tmp_path / "settings.json").read_text() == '{"editor.tabSize": 4}'


def test_an_output_of_an_earlier_version_gets_the_shape_of_its_noise(
    output: Path, data: Path, run: Path
) -> None:
    path = output / "settings.json"
    before = json.loads(path.read_bytes())
    earlier = {name: value for name, value in before.items() if name != "0-run.noise"}
    path.write_text(json.dumps(earlier))
    assert evaluated(run, "--data", data, "--output", output, *QUICK)["sources"][0]["noise"] is None
    next(pngs(output)).unlink()
    assert evaluated(run, "--data", data, "--output", output, *QUICK)["sources"][0]["noise"] == "16x16"
    assert json.loads(path.read_bytes()) == before


def test_images_of_which_nothing_was_recorded_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    image = tmp_path / "images" / "0-run" / "key_0" / "inputs-1_target-5_sample-0.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    with pytest.raises(TrainingError, match=r'0-run\.device: null there, "cpu" now'):
        check_loaded(tmp_path, {}, "0-run", [ON_CPU])
    check_loaded(tmp_path, {}, "1-run", [ON_CPU])  # of this source there are none
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
        check_loaded(tmp_path, {}, "0-run", [ON_CPU, ON_CPU, Loaded("cpu", "fp32", "4567", "64x16")])
    assert (tmp_path / "settings.json").read_text() == "{}"
