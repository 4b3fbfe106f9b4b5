"""Whether drawings look like the person: measured on runs and held-out people, as README says it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from flow_runs import as_trained, flow_config, flow_stage, write_run
from PIL import Image

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def called(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of three people, of whom two are held out: the same portrait, once in a mirror."""
    folder = tmp_path_factory.mktemp("photographs")
    portrait = Image.fromarray(skimage.data.astronaut())
    for name, image in (
        ("anna", portrait),
        ("berta", portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ("clara", portrait),
    ):
        (folder / "people" / name).mkdir(parents=True)
        for number in range(8):
            image.save(folder / "people" / name / f"{number}.png")
    made = called("photo_shards.py", folder / "people", folder / "shards", "--held-out", 2)
    assert made.returncode == 0, made.stderr
    return folder / "shards"


def test_runs_are_measured_against_strangers_photographs_and_each_other(shards: Path, tmp_path: Path) -> None:
    config = flow_config(None, None, {"identity_dropout": 0.1})
    run = write_run(tmp_path / "run", config, as_trained(flow_stage(config)))
    shutil.copytree(run, tmp_path / "twin")
    few = ("--steps", 1, "--samples", 1, "--identity-guidance", 2)
    result = called("flow_identity.py", shards, run, tmp_path / "twin", *few)
    assert result.returncode == 0, result.stderr
    assert (
        "2 held-out people, 1 drawing(s) of each, 1 steps, adapter scale 1, identity guidance 2"
        in result.stdout
    )
    figures = {
        name: [float(value) for value in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]
        for line in result.stdout.splitlines()
        for name in ("run ", "twin ", "photographs of 64 px")
        if line.startswith(name) and " ahead " not in line
    }
    assert figures["run "] == figures["twin "]
    own, stranger, gain, _ = figures["photographs of 64 px"]
    assert own > 0.8  # the photographs of a person are one
    assert gain == pytest.approx(own - stranger, abs=0.0015)
    assert "run is ahead of twin by 0.000 ± 0.000" in result.stdout


def test_a_run_that_cannot_be_guided_is_said_in_a_line(shards: Path, tmp_path: Path) -> None:
    config = flow_config(None, None)
    run = write_run(tmp_path / "run", config, as_trained(flow_stage(config)))
    result = called("flow_identity.py", shards, run, "--identity-guidance", 2)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: identity guidance of 2 needs a run")
    assert "Traceback" not in result.stderr
