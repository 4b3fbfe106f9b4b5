"""A new decoder: the example of CONTRIBUTING.md trains as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from trainers import WORKFLOW, Run

from training.config import Config
from training.decoders.registry import Decoders
from training.engine.collectives import Collectives
from training.engine.processes import processes
from training.engine.signals import StopRequest
from training.evaluate.sheet import GAP_PX, TILE_PX
from training.train import _Run


def example() -> dict[str, Any]:
    """What the example of CONTRIBUTING.md defines."""
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"```python\n(# training/decoders/colour\.py\n.*?)```", text, re.DOTALL)
    # A module of its own, in which pydantic finds the names of annotations.
    module = ModuleType("colour_of_contributing")
    sys.modules[module.__name__] = module
    exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102 - a text of this repository
    return module.__dict__


ColourConfig: Any = example()["ColourConfig"]


class WithColour(Decoders):
    """The registry with one line more."""

    colour: ColourConfig | None = None


class ColourRun(Config):
    decoders: WithColour


def config_of(run: Run, root: Path, **decoders: Any) -> ColourRun:
    given: dict[str, Any] = yaml.safe_load(WORKFLOW) | {"output": str(run.output), "decoders": decoders}
    given["data"] |= {"root": str(root)}
    given["optimiser"] |= {"learning_rate": 0.01}
    return ColourRun.model_validate(given)


def started(config: Config, start: Callable[[_Run], None]) -> None:
    """Run on this process."""
    torch.set_num_threads(1)
    with processes(deterministic=True) as world:
        start(_Run(config, world, Collectives(world), StopRequest()))


def test_it_trains_validates_and_shows_in_the_grid(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset)
    started(config_of(run, dataset, colour={}), _Run.train)
    losses = run.series("train/loss")
    assert len(losses) == 10
    assert losses[-1] < 0.8 * losses[0]
    assert len(run.series("val/loss_own")) == 2
    assert run.series("val/swap_ratio")[-1] > 0
    names = {name.partition(".")[2] for name in run.tensors() if name.startswith("weights.")}
    assert {name for name in names if not name.startswith("representation.")} == {
        "decoders.colour.colour.weight",
        "decoders.colour.colour.bias",
    }
    grid = np.asarray(Image.open(run.output / "samples" / "step-000000010.png"))
    assert grid.shape[1] == GAP_PX + (3 + 1) * (TILE_PX + GAP_PX)
    assert run.encoder()


def test_it_trains_beside_another_decoder(dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset)
    started(config_of(run, dataset, mtd={}, colour={"weight": 2.0}), _Run.train)
    for line in run.lines():
        if "train/loss" in line:
            expected = line["train/loss_mtd"] + 2 * line["train/loss_colour"]
            assert line["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert len(run.series("val/colour_loss_own")) == len(run.series("val/mtd_loss_own")) == 2


def test_a_dry_run_tries_it(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, dataset)
    started(config_of(run, dataset, colour={}), _Run.dry_run)
    said = capsys.readouterr().err
    assert "parameters of omniid (tiny) and colour:" in said
    assert f"  {'decoders.colour.colour':<24} {128 * 3 + 3:>15,}" in said
    assert re.search(r"^step 2: loss \d\.\d{4}, gradient norm", said, re.M)
    assert re.search(r"^validation: loss_own \d\.\d{4}, ", said, re.M)
    assert not run.output.exists()
