"""Every stage has a sample grid."""

from __future__ import annotations

from typing import get_args

import torch

from training.config import Config
from training.evaluate.grids import GRIDS, grid_of
from training.models.build import build_stage


def test_every_stage_of_a_configuration_has_a_grid() -> None:
    assert set(GRIDS) == set(get_args(Config.model_fields["stage"].annotation))


def test_the_grid_of_a_configuration_draws_its_stage(make_batch) -> None:
    values = {
        "output": "out",
        "data": {"root": "root"},
        "model": {"size": "tiny", "clip": "random"},
    }
    scratch = {
        "layers": 1,
        "single_layers": 1,
        "heads": 2,
        "head_width": 16,
        "patch": 4,
    }
    for more in (
        {"stage": "mtd"},
        {"stage": "flow", "flow": {"scratch": scratch, "side": 32, "sample_steps": 2}},
    ):
        config = Config.model_validate(values | more)
        sheet = grid_of(config)(build_stage(config).eval(), make_batch(people=2), torch.device("cpu"), 2)
        assert sheet.ndim == 3
        assert sheet.std() > 10
