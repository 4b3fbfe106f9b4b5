"""Jobs run one after the other: failures are named, and a stop ends the experiment."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.experiments.plan import EVALUATE, EXPORT, Job
from training.experiments.run import run_jobs

TOWER = Job("tower-0", "tower", {"data": "/nowhere", "size": "tiny", "seed": 0})
EXPORTED = Job("mtd-0-step4", EXPORT, {"run": "/nowhere", "step": 4}, (TOWER,))
EVALUATED = Job("flow-0", EVALUATE, {})


def done(job: Job, root: Path, file: str) -> None:
    job.output(root).mkdir(parents=True)
    (job.output(root) / file).write_text("{}")


def test_a_job_that_fails_is_named_and_only_those_that_need_it_are_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done(EVALUATED, tmp_path, "evaluation.json")
    done(TOWER, tmp_path, f".tower.safetensors.tmp-{'0a' * 8}")
    lines: list[str] = []
    with pytest.raises(TrainingError) as error:
        run_jobs([TOWER, EXPORTED, EVALUATED], tmp_path, lines.append)
    assert str(error.value) == (
        "2 of 3 jobs failed:\n- tower-0: exit code 1\n- mtd-0-step4: needs tower-0\n"
        "The same command runs them again"
    )
    assert lines[1:] == [
        "[1/3] tower tower-0: failed with exit code 1",
        "[2/3] export mtd-0-step4: skipped, because tower-0 failed",
        "[3/3] evaluate flow-0: done before",
    ]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "error: /nowhere is no finished data" in printed.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_jobs_stops_the_experiment(tmp_path: Path, number: signal.Signals) -> None:
    done(EVALUATED, tmp_path, "evaluation.json")
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    lines: list[str] = []

    def message(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), number)

    with pytest.raises(TrainingError, match=rf"^{number.name} stopped the experiment\. The same command"):
        run_jobs([EVALUATED, TOWER], tmp_path, message)
    assert lines == ["[1/2] evaluate flow-0: done before"]
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_sigint_to_the_experiment_alone_says_that_the_job_ends_first(tmp_path: Path) -> None:
    lines: list[str] = []
    signal_s = 0.5  # the job imports torch for longer than that
    timer = threading.Timer(signal_s, os.kill, (os.getpid(), signal.SIGINT))
    said_s: list[float] = []

    def message(line: str) -> None:
        if not lines:
            timer.start()  # with the job, however long the test takes to get there
        lines.append(line)
        said_s.append(time.monotonic())

    with pytest.raises(TrainingError, match=r"^tower-0 was stopped"):
        run_jobs([TOWER, EVALUATED], tmp_path, message)
    timer.join()
    assert lines[1].startswith("SIGINT: the experiment ends after the running job")
    assert time.monotonic() > said_s[1] + 0.1  # while the job ran


def test_a_sigterm_while_a_job_is_started_reaches_it(tmp_path: Path) -> None:
    lines: list[str] = []

    def message(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match=r"^tower-0 was stopped\. The same command continues"):
        run_jobs([TOWER, EVALUATED], tmp_path, message)
    assert lines == [f"[1/2] tower tower-0: {TOWER.output(tmp_path)}"]
