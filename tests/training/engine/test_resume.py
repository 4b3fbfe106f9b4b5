"""A run that is killed, stopped, or goes on with other processes is the run that was never disturbed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from trainers import Run, make_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "mfhq")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), dataset)
    run.ended(2)
    return run


def test_killed_at_any_moment_it_gives_the_same_bits(undisturbed: Run, dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset)
    # One process of two dies between checkpoints.
    with run.started(2) as trainers:
        trainers.until(lambda: run.steps() >= 3)
        trainers.signal(signal.SIGKILL, ranks=[1])
        assert trainers.wait() == [1, -signal.SIGKILL]
        assert "another process of the run has gone" in trainers.log(0)
        assert "Traceback" not in trainers.log(0)
    print(run.checkpoints(), run.steps())
    # All die while a checkpoint is being written.
    with run.started(2) as trainers:
        trainers.until(lambda: any(name.startswith(".step") for name in run.checkpoints()), poll_s=0.001)
        trainers.kill()
    print(run.checkpoints(), run.steps())
    # All die just after a step.
    with run.started(2) as trainers:
        reached = run.steps()
        trainers.until(lambda: run.steps() > max(reached, 6))
        trainers.kill()
    print(run.checkpoints(), run.steps())
    run.ended(2)
    assert run.lines() == undisturbed.lines()
    assert run.encoder() == undisturbed.encoder()
