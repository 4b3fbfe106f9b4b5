"""`omniid experiment` at the tiny size, from training to the table: interrupted, continued, and done before."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import LIMIT_S, ONE_THREAD, ROOT, started
from PIL import Image

from training.evaluate.sheet import GAP_PX, TILE_PX

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))

from rendered_people import PEOPLE, write_people

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TABLE3 = ("table3", "--row", "full", "--row", "without-flow")
FIGURE9 = ("figure9", "--row", "0", "--row", "20")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "shards", PEOPLE[:2], training=8)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all experiments: they share their runs."""
    return tmp_path_factory.mktemp("experiments") / "out"


def command(data: Path, output: Path, *arguments: str) -> list[str]:
    options = ["--size", "tiny", "--data", str(data), "--output", str(output)]
    return [sys.executable, "-m", "training.cli", "experiment", *arguments, *options]


def finished(data: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An experiment that must succeed."""
    result = subprocess.run(
        command(data, output, *arguments),
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
    )
    assert result.returncode == 0, result.stderr
    return result


def jobs(stderr: str, status: str) -> list[str]:
    """The actions and names of the jobs of which a status is reported."""
    return re.findall(rf"^\[\d+/\d+\] (\S+ \S+): {status}", stderr, re.MULTILINE)


def test_an_interrupted_table_continues_and_a_finished_one_is_done_before(
    data: Path, output: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with started(command(data, output, *TABLE3), log) as process:
        until = time.monotonic() + LIMIT_S
        while not list(output.glob("runs/mtd-*/checkpoints/step-000000002")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 1
    interrupted = log.read_text()
    assert "stopped. The same command continues the experiment" in interrupted
    assert "| full | 0 of 1 |" in interrupted
    assert len(jobs(interrupted, "/")) == 2  # the tower and MTD were started, and nothing after them
    (mtd,) = output.glob("runs/mtd-*")
    assert not (mtd / "encoder").exists()

    first = finished(data, output, *TABLE3)
    assert jobs(first.stderr, "done before") == [f"tower {next(output.glob('runs/tower-*')).name}"]
    actions = [job.split()[0] for job in jobs(first.stderr, "done in")]
    assert actions == ["train", "train", "train", "evaluate", "train", "evaluate"]
    table = (output / "table3-tiny.md").read_text()
    assert first.stdout == f"{table}\n"
    document = json.loads((output / "table3-tiny.json").read_bytes())
    # All rows whose datasets are given, whichever were asked for.
    assert [(row["row"], row["seeds"]) for row in document["rows"]] == [
        ("full", 1), ("without-mtd", 0), ("without-flow", 1), ("without-few-to-many", 0),
    ]  # fmt: skip
    # The paper's figures stand beside; images of noise have no face, so there is no pose error.
    assert re.search(r"^\| full \| 1 of 1 \| 0\.000 \(0\.000 to 0\.000\) \| 0\.708 \|", table, re.MULTILINE)
    assert "| pose error" not in table
    assert "there is no pose error, because no pose was found in the images" in table
    assert "not in the table: row webface needs the dataset 'webface'" in first.stderr
    for row in ("full", "without-flow"):
        (name,) = document["evaluations"][row]
        evaluation = json.loads((output / "evaluations" / name / "evaluation.json").read_bytes())
        assert evaluation["sources"][0]["pose_conditioned"] is True
        assert evaluation["networks"]["detector"]["name"] == "yunet"
    with Image.open(output / "table3-tiny.png") as sheet:
        # Three inputs, pose, two rows, truth.
        assert sheet.width == GAP_PX + 7 * (TILE_PX + GAP_PX)

    content = {path.name: path.read_bytes() for path in output.glob("table3-*")}
    again = finished(data, output, *TABLE3)
    assert len(jobs(again.stderr, "done before")) == 7
    assert jobs(again.stderr, "/") == []
    assert again.stdout == first.stdout
    assert {path.name: path.read_bytes() for path in output.glob("table3-*")} == content


def test_a_figure_shares_the_runs_of_the_table_and_is_plotted(data: Path, output: Path) -> None:
    first = finished(data, output, *FIGURE9)
    shared = [job.split("-")[0] for job in jobs(first.stderr, "done before")]
    assert {"tower tower", "train mtd"} <= set(shared)
    (exported,) = [job for job in jobs(first.stderr, "done in") if job.startswith("export ")]
    assert exported.endswith("-step4")  # a fifth of 20 steps
    facts = json.loads((output / "runs" / exported.split()[1] / "omniid.json").read_bytes())
    assert facts["step"] == 4
    document = json.loads((output / "figure9-tiny.json").read_bytes())
    done = [(row["row"], row["x"]) for row in document["rows"] if row["seeds"] == 1]
    assert done == [("0", 0), ("20", 0.2)]
    assert (output / "figure9-tiny.svg").read_text().count("share of MTD's steps") == 1
    content = {path.name: path.read_bytes() for path in output.glob("figure9-*")}
    assert content.keys() == {f"figure9-tiny.{suffix}" for suffix in ("json", "md", "svg", "png")}
    again = finished(data, output, *FIGURE9)
    assert jobs(again.stderr, "/") == []
    assert {path.name: path.read_bytes() for path in output.glob("figure9-*")} == content
