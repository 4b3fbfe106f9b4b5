"""The command lines of jobs on several processes: micro-batches that fit, and a stop that waits for the save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from settings.section import ConfigError
from training.config import Config
from training.data.order import Share
from training.experiments.commands import arguments, process_count, with_fitting_micro_batch
from training.experiments.config import Program, load_size, load_table
from training.experiments.plan import Job, plan

ROOT = Path(__file__).parents[3]
SLOW_TO_SAVE_S = 33
"""More than the half minute after which torchrun by itself kills what it started."""
SLOW_TO_SAVE = f"""\
import pathlib, signal, sys, time
output = pathlib.Path(sys.argv[2]).parents[1] / "runs" / "mtd-0"
asked = False
def ask(*_):
    global asked
    asked = True
signal.signal(signal.SIGTERM, ask)
output.mkdir(parents=True)
(output / "begun").touch()
while not asked:
    time.sleep(0.05)
time.sleep({SLOW_TO_SAVE_S})
(output / "saved").touch()
"""
EXPERIMENT = """\
import sys
from pathlib import Path
from training.errors import TrainingError
from training.experiments import commands
from training.experiments.plan import Job
from training.experiments.run import run_jobs

commands.CLI = "slow_to_save"
root = Path(sys.argv[1])
settings = {"output": str(root / "runs" / "mtd-0"), "data": {"root": "mfhq"}, "batch": 2, "decoders": {"mtd": {}}}
settings |= {"representation": {"size": "tiny"}, "run": {"per_process": 2}}
try:
    run_jobs([Job("mtd-0", "train", settings)], root, print, sys.argv[2])
except TrainingError as error:
    sys.exit(str(error))
"""


def trainings(table: str) -> list[Job]:
    found = plan(
        load_table(table),
        load_size("small"),
        seeds=1,
        root=Path("/experiments"),
        datasets={"dataset": "/data/mfhq", "webface": "/data/webface"},
    )
    return [job for job in found.jobs() if job.action == Program.TRAIN]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_small_training_runs_on_one_and_on_two_processes(tmp_path: Path, processes: int) -> None:
    jobs = [job for table in ("table1", "table2", "ablations") for job in trainings(table)]
    stages = {job.name.split("-")[0] for job in jobs}
    assert stages == {"mtd", "flow", "control"}
    for job in jobs:
        workflow = Path(arguments(job, tmp_path, processes)[2])
        config = Config.model_validate(yaml.safe_load(workflow.read_text()))
        assert Share(config.batch, config.run.per_process, 0, processes).accumulation == 1
        # The step is the one that was planned.
        assert config.defining() == Config.model_validate(job.settings).defining()
        if processes == 1:
            assert config == Config.model_validate(job.settings)


@pytest.mark.parametrize(
    ("batch", "per_process", "processes", "expected"),
    [(8, 8, 4, 2), (12, 8, 2, 6), (12, 4, 2, 3), (8, 2, 2, 2), (8, 8, 3, 8), (2, 2, 4, 2)],
)
def test_a_micro_batch_is_as_large_as_it_was_or_as_fits(
    batch: int, per_process: int, processes: int, expected: int
) -> None:
    settings = {
        "output": "/out",
        "data": {"root": "/data"},
        "representation": {"size": "tiny"},
        "decoders": {"mtd": {}},
        "batch": batch,
        "run": {"per_process": per_process, "precision": "fp32"},
    }
    found = with_fitting_micro_batch(settings, processes)
    assert found == settings | {"run": {"per_process": expected, "precision": "fp32"}}


def test_a_training_that_was_stopped_is_not_evaluated(tmp_path: Path) -> None:
    """On Slurm it ends as one that has finished, and its evaluation would count as done for good."""
    found = plan(
        load_table("table2"),
        load_size("small"),
        seeds=1,
        root=Path("/experiments"),
        datasets={"dataset": "/data/mfhq"},
    )
    (job,) = found.evaluations["3-8"]
    assert "--finished" in arguments(job, tmp_path)


@pytest.mark.parametrize("processes", ["0", "two", "-1", ""])
def test_a_number_of_processes_that_is_none_is_an_error(processes: str) -> None:
    with pytest.raises(ConfigError, match="--processes: expected a number above 0, or gpu"):
        process_count(processes)


@pytest.mark.slow
def test_sigterm_waits_for_a_training_that_takes_long_to_save(tmp_path: Path) -> None:
    (tmp_path / "slow_to_save.py").write_text(SLOW_TO_SAVE)
    root = tmp_path / "experiments"
    process = subprocess.Popen(
        [sys.executable, "-c", EXPERIMENT, str(root), "1"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 300
        while not (root / "runs" / "mtd-0" / "begun").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - asked >= SLOW_TO_SAVE_S
    assert (root / "runs" / "mtd-0" / "saved").exists(), said
    assert "mtd-0 was stopped. The same command continues the experiment" in said
