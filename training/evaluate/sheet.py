"""The sheet of a sample grid: one row an identity, which begins with its inputs.

Letters in names give the shape:
    C  colour channels (3, RGB)    S  side of an image in pixels    M  inputs
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.batch import Batch
from training.models.pixels import pixels

TILE_PX = 160
GAP_PX = 6
CAPTION_PX = 30
FONT_PX = 15
PAPER = (255, 255, 255)
INK = (60, 60, 60)
Tiles = list[torch.Tensor | None]
"""Images (3, S, S) in [0, 1]; None leaves a place empty."""


def input_columns(batch: Batch, rows: int) -> tuple[list[str], list[tuple[int, Tiles]]]:
    """What every grid begins with: the inputs of the first identities of a batch.

    Args:
        batch: on the CPU.
        rows: identities at most; damaged ones are left out.

    Returns:
        The captions of the columns; the row of each identity in the batch, with its inputs.
    """
    most = batch.inputs_BM.shape[1]
    shown: list[tuple[int, Tiles]] = []
    for row in [row for row, valid in enumerate(batch.valid_B.tolist()) if valid][:rows]:
        valid_BM = batch.input_valid_BM
        numbers = batch.inputs_BM[row] if valid_BM is None else batch.inputs_BM[row][valid_BM[row]]
        inputs_MCSS = pixels(batch.images_BKSSC[row, numbers], batch.images_BKSSC.shape[2])
        shown.append((row, [*inputs_MCSS, *[None] * (most - len(inputs_MCSS))]))
    return [f"input {number + 1}" for number in range(most)], shown


def make_sheet(captions: list[str], lines: list[Tiles]) -> NDArray[np.uint8]:
    """Images in lines, on a sheet with a caption above each column; (H, W, 3) uint8, RGB."""
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (len(captions) * step + GAP_PX, len(lines) * step + CAPTION_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_PX)
    for column, caption in enumerate(captions):
        middle = (GAP_PX + column * step + TILE_PX / 2, CAPTION_PX / 2)
        pen.text(middle, caption, INK, font, anchor="mm")
    for row, line in enumerate(lines):
        for column, image_CSS in enumerate(line):
            if image_CSS is not None:
                sheet.paste(_tile(image_CSS), (GAP_PX + column * step, CAPTION_PX + row * step))
    return np.asarray(sheet)


def _tile(image_CSS: torch.Tensor) -> Image.Image:
    levels = (image_CSS.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
