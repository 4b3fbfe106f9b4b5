"""An evaluation on two ranks gives the bytes of one on a single rank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import QUICK, pngs, write_control_run, write_flow_run
from launches import ONE_THREAD, ROOT
from rendered_people import PEOPLE, write_people

pytestmark = pytest.mark.slow


def launched(ranks: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "training.cli", "evaluate"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(Path.home()), **ONE_THREAD}
    return subprocess.run(
        [*command, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def test_two_ranks_share_the_people_and_report_what_one_reports(tmp_path: Path) -> None:
    control = write_control_run(tmp_path)
    flow = tmp_path / "flow"
    data = write_people(tmp_path / "shards", PEOPLE, grey={PEOPLE[4]: range(8), PEOPLE[1]: (0, 1)})
    files = {}
    for ranks in (1, 2):
        output = tmp_path / f"out-{ranks}"
        result = launched(ranks, flow, control, "--data", data, "--output", output, *QUICK)
        assert result.returncode == 0, result.stderr
        files[ranks] = {
            path.relative_to(output).as_posix(): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }
        assert len(list(pngs(output))) > 30
        # Five people on two ranks: the lines are rank 0's, once.
        shared = 5 if ranks == 1 else 3
        assert result.stderr.count(f"measured the real images of {shared} of {shared} people") == 1
    assert files[1].keys() == files[2].keys()
    differing = [name for name, data in files[1].items() if files[2][name] != data]
    assert differing == []
    assert json.loads(files[2]["evaluation.json"])["people"]["evaluated"] == 4


def test_an_error_of_all_ranks_is_printed_once(tmp_path: Path) -> None:
    run = write_flow_run(tmp_path / "run")
    data = write_people(tmp_path / "shards", ())
    result = launched(2, run, "--data", data, "--output", tmp_path / "out", *QUICK)
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert said[0].endswith(
        f"{data} holds no people out: its test split is empty. Build the dataset with a test split "
        "(split.test_people, or split.test_fraction), or give another with --data"
    )
