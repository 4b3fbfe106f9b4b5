"""What the tests of the launchers share: started commands, and what a run has come to."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.engine.jsonl import read_metrics

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "workflows" / "launch"
TINY = str(ROOT / "workflows" / "train_mtd_tiny.yaml")
SHORT = (
    "batch=2",
    "run.per_process=1",
    "run.log_every=1",
    "run.decode_threads=1",
    "validation.identities=2",
    "validation.grid_persons=1",
)
LIMIT_S = 500
"""For a machine that is busy with other things."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Threads of several processes on few cores would wait for each other, and spin meanwhile."""


@contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher with all that it starts, which is gone when the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ONE_THREAD | {"PYTHON": sys.executable} | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    import psutil

    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def wait_for_steps(output: Path, steps: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    metrics = output / "metrics.jsonl"
    while not (metrics.exists() and len(read_metrics(metrics)) >= steps):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def saved(output: Path) -> list[tuple[int, int]]:
    """Step and number of processes of each checkpoint."""
    states = [json.loads(path.read_text()) for path in sorted(output.glob("checkpoints/step-*/state.json"))]
    return [(state["step"], state["world_size"]) for state in states]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
