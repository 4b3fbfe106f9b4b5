"""Run jobs on this machine, one after the other, without those that are done or need one that failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from settings.units import duration
from training.errors import TrainingError
from training.experiments.commands import REPOSITORY, command, is_done
from training.experiments.plan import Job

CONTINUES = "The same command continues the experiment"
_STOPPED = {0, 128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM}
"""Exit codes of a job that is not done because it received a signal itself: a training saves, and exits with 0."""
_STDERR = 2


def run_jobs(
    jobs: Sequence[Job], root: Path, message: Callable[[str], None], processes: str | None = None
) -> None:
    """Run what is not done yet.

    Args:
        jobs: each behind those that it needs.
        root: output directory of all experiments.
        message: receives the job that starts, and how long it took.
        processes: of torchrun for each job (`commands.command`).

    Raises:
        TrainingError: jobs failed, which are named; or SIGTERM or SIGINT stopped the experiment.
    """
    failed: dict[str, str] = {}
    with _passing_signals(message) as signals:
        for number, job in enumerate(jobs, 1):
            if signals.received is not None:
                raise TrainingError(f"{signals.received} stopped the experiment. {CONTINUES}")
            place = f"[{number}/{len(jobs)}] {job.action} {job.name}"
            if is_done(job, root):
                message(f"{place}: done before")
                continue
            if missing := [need.name for need in job.needs if need.name in failed]:
                failed[job.name] = f"needs {missing[0]}"
                message(f"{place}: skipped, because {missing[0]} failed")
                continue
            message(f"{place}: {job.output(root)}")
            began = time.monotonic()
            code = _run(job, root, processes, signals)
            if code == 0 and is_done(job, root):
                message(f"{place}: done in {duration(time.monotonic() - began)}")
            elif signals.received is not None or code in _STOPPED:
                raise TrainingError(f"{job.name} was stopped. {CONTINUES}")
            else:
                failed[job.name] = f"exit code {code}"
                message(f"{place}: failed with exit code {code}")
    if failed:
        listed = "\n".join(f"- {name}: {why}" for name, why in failed.items())
        raise TrainingError(
            f"{len(failed)} of {len(jobs)} jobs failed:\n{listed}\nThe same command runs them again"
        )


def _run(job: Job, root: Path, processes: str | None, signals: _Signals) -> int:
    path = os.pathsep.join([str(REPOSITORY), *_python_path()])
    environment = os.environ | {"PYTHONPATH": path, "PYTHON": sys.executable}
    # What a job prints is progress; stdout is for the table.
    with subprocess.Popen(command(job, root, processes), env=environment, stdout=_STDERR) as process:
        return signals.wait(process)


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


class _Signals:
    """SIGTERM and SIGINT: passed to the job that runs, and remembered."""

    def __init__(self, message: Callable[[str], None]) -> None:
        self._message = message
        self.received: str | None = None
        """Name of the first signal."""
        self._process: subprocess.Popen[bytes] | None = None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Ctrl-C reaches the job from the terminal as well, so SIGINT is not passed on: the trainer would take it for
        a second one.
        """
        if number == signal.SIGINT and self.received is None and self._process is not None:
            self._message(
                "SIGINT: the experiment ends after the running job. Ctrl-C also stops that job; send SIGTERM to "
                "stop both"
            )
        self.received = self.received or signal.Signals(number).name
        if self._process is not None and number == signal.SIGTERM:
            self._process.send_signal(number)

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a job; its exit code."""
        self._process = process
        if self.received == signal.SIGTERM.name:  # between two jobs, or while this one was started
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait()
        finally:
            self._process = None


@contextmanager
def _passing_signals(message: Callable[[str], None]) -> Iterator[_Signals]:
    signals = _Signals(message)
    before = {number: signal.signal(number, signals.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
