"""What the tests of the sample grids share: the place of a tile on the sheet."""

from __future__ import annotations

import numpy as np

from training.evaluate.sheet import CAPTION_PX, GAP_PX, TILE_PX

STEP_PX = TILE_PX + GAP_PX


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """The pixels of a tile."""
    top, left = CAPTION_PX + row * STEP_PX, GAP_PX + column * STEP_PX
    return sheet[top : top + TILE_PX, left : left + TILE_PX]
