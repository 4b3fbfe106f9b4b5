"""A stop ends the run wherever it comes: while validating, and while there is nothing to work on yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainers import WORKFLOW, Run

from training.config import Config
from training.engine.checkpoint import Checkpoints, SavedState
from training.engine.collectives import Collectives
from training.engine.processes import processes
from training.engine.signals import StopRequest
from training.errors import RunEnded
from training.train import _Run

STEPS = 2


class WhileValidating(StopRequest):
    """Asked to stop when the last step of all is done, and its validation is next."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def asked(self) -> bool:
        return self._run.steps() == STEPS and not self._run.series("val/loss_own")


def train(run: Run, stop: StopRequest) -> None:
    """Train on this process."""
    given: dict[str, Any] = yaml.safe_load(WORKFLOW) | {"steps": STEPS, "output": str(run.output)}
    given["data"] |= {"root": run.arguments[1].removeprefix("data.root=")}
    config = Config.model_validate(given)
    torch.set_num_threads(1)  # the networks are so small that threads only wait for each other
    with processes(deterministic=False) as world:
        _Run(config, world, Collectives(world), stop).train()


def owed(run: Run) -> bool:
    path = run.output / "checkpoints" / run.checkpoints()[-1] / "state.json"
    return SavedState.model_validate_json(path.read_text()).validation_owed


def test_a_validation_cut_short_is_made_up_for_once(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, run = Run(tmp_path / "straight", dataset), Run(tmp_path / "run", dataset)
    train(straight, StopRequest())
    capsys.readouterr()

    train(run, WhileValidating(run))
    assert "stopped and saved at step 2" in capsys.readouterr().err
    assert run.series("val/loss_own") == []
    assert owed(run)
    assert not (run.output / "encoder").exists()

    for _ in range(2):
        train(run, StopRequest())
        assert run.lines() == straight.lines()
        assert run.encoder() == straight.encoder()
        assert not owed(run)


def test_figures_of_a_validation_that_is_made_up_for_twice_are_there_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, run = Run(tmp_path / "straight", dataset), Run(tmp_path / "run", dataset)
    train(straight, StopRequest())
    train(run, WhileValidating(run))

    def end(*_: object) -> None:
        raise RunEnded("before the checkpoint notes it")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "amend", end)
        with pytest.raises(RunEnded):
            train(run, StopRequest())
    assert run.series("val/loss_own")
    assert owed(run)
    train(run, StopRequest())
    assert run.lines() == straight.lines()


def test_a_stop_before_the_first_step_saves_nothing_and_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, stop = Run(tmp_path, dataset), StopRequest()
    stop.received = "SIGTERM"
    train(run, stop)
    assert "nothing was saved" in capsys.readouterr().err
    assert run.checkpoints() == []
