"""Which sample grid belongs to which stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import Config
from training.data.batch import Batch
from training.evaluate.flow_grid import flow_grid
from training.evaluate.grid import sample_grid

Grid = Callable[[Any, Batch, torch.device, int], NDArray[np.uint8]]
"""Draws the first rows of a batch with a stage; (H, W, 3) uint8, RGB."""
GRIDS: dict[str, Grid] = {"mtd": sample_grid, "flow": flow_grid}


def grid_of(config: Config) -> Grid:
    """The sample grid for the stage that a configuration describes."""
    return GRIDS[config.stage]
