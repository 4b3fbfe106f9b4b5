"""A window of steps is profiled: those steps and no others, into files that viewers read."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.config import Profile
from training.engine.profiling import Profiler, check_whole
from training.errors import TrainingError

CPU = torch.device("cpu")


def trained(config: Profile | None, output: Path, steps: int, rank: int = 0) -> list[Path | None]:
    traces = []
    with Profiler(config, output, rank, CPU) as profiler:
        for step in range(steps):
            profiler.before(step)
            with torch.profiler.record_function(f"step {step}"):
                torch.ones(8, 8) @ torch.ones(8, 8)
            traces.append(profiler.after())
    return traces


def steps_in(trace: Path) -> set[str]:
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return {event["name"] for event in events if event["name"].startswith("step ")}


def test_the_steps_of_the_window_are_recorded_and_no_others(tmp_path: Path) -> None:
    traces = trained(Profile(first_step=2, steps=2), tmp_path, 6)
    (trace,) = [found for found in traces if found]
    assert traces[3] == trace == tmp_path / "profile" / "rank-0.trace.json.gz"
    assert steps_in(trace) == {"step 2", "step 3"}


def test_without_a_window_or_on_other_ranks_nothing_is_written(tmp_path: Path) -> None:
    assert set(trained(None, tmp_path, 3)) == {None}
    assert set(trained(Profile(first_step=0, steps=1), tmp_path, 3, rank=1)) == {None}
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_within_the_window_leaves_what_there_is(tmp_path: Path) -> None:
    assert set(trained(Profile(first_step=1, steps=5), tmp_path, 3)) == {None}
    assert steps_in(tmp_path / "profile" / "rank-0.trace.json.gz") == {"step 1", "step 2"}


def test_a_run_that_resumes_past_the_first_step_is_profiled_from_there(tmp_path: Path) -> None:
    with Profiler(Profile(first_step=2, steps=1), tmp_path, 0, CPU) as profiler:
        for step in (7, 8, 9):
            profiler.before(step)
            assert (profiler.after() is not None) == (step == 7)


QUIET = """\
import sys
from pathlib import Path
import torch
from training.config import Profile
from training.engine.profiling import Profiler

with Profiler(Profile(first_step=0, steps=1), Path(sys.argv[1]), 0, torch.device("cpu")) as profiler:
    profiler.before(0)
    torch.ones(8, 8) @ torch.ones(8, 8)
    assert profiler.after() is not None
"""


def test_without_a_gpu_the_profiler_prints_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUIET, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_trace_that_is_not_whole_is_an_error(tmp_path: Path, part: float) -> None:
    (trace,) = [found for found in trained(Profile(first_step=0, steps=1), tmp_path, 1) if found]
    check_whole(trace)
    text = gzip.decompress(trace.read_bytes())
    trace.write_bytes(gzip.compress(text[: int(part * len(text))]))
    with pytest.raises(TrainingError, match=r"rank-0\.trace\.json\.gz is not whole"):
        check_whole(trace)
    trace.write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(TrainingError, match="is not whole"):
        check_whole(trace)


@pytest.mark.slow
def test_a_run_is_profiled_and_its_losses_are_those_of_one_that_is_not(dataset: Path, tmp_path: Path) -> None:
    from trainers import Run

    plain, profiled = (Run(tmp_path / name, dataset, "steps=3") for name in ("plain", "profiled"))
    plain.ended(2)
    profiled.ended(2, "run.profile={first_step: 1, steps: 1, ranks: 2}")
    assert profiled.lines() == plain.lines()
    names = sorted(path.name for path in (profiled.output / "profile").iterdir())
    assert names == ["rank-0.trace.json.gz", "rank-1.trace.json.gz"]
