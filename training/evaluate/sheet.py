"""The sheet of a sample grid: one row an identity, which begins with its inputs.

Letters in names give the shape:
    C  colour channels (3, RGB)    S  side of an image in pixels    M  inputs
"""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.batch import Batch
from training.models.pixels import pixels

TILE_PX = 160
GAP_PX = 6
CAPTION_PX = 30
"""Of captions of one line; each further line adds `LINE_PX`."""
LINE_PX = 18
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
    font = ImageFont.load_default(FONT_PX)
    texts = [_wrapped(caption, font) for caption in captions]
    top = CAPTION_PX + LINE_PX * max(text.count("\n") for text in texts)
    sheet = Image.new("RGB", (len(captions) * step + GAP_PX, len(lines) * step + top), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(texts):
        middle = (GAP_PX + column * step + TILE_PX / 2, top / 2)
        pen.text(middle, text, INK, font, anchor="mm", align="center")
    for row, line in enumerate(lines):
        for column, image_CSS in enumerate(line):
            if image_CSS is not None:
                sheet.paste(_tile(image_CSS), (GAP_PX + column * step, top + row * step))
    return np.asarray(sheet)


def tile_of(image_SSC: NDArray[np.uint8]) -> torch.Tensor:
    """An RGB image as a sheet takes it, (3, S, S) in [0, 1]."""
    return torch.from_numpy(image_SSC.copy()).permute(2, 0, 1).float() / 255


def _wrapped(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A caption in lines that are no wider than a tile, broken behind blanks, hyphens and underscores."""
    lines = [""]
    for part in re.findall(r"[^\s_-]*[_-]*\s*", caption):
        if lines[-1] and font.getlength(lines[-1] + part.rstrip()) > TILE_PX:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _tile(image_CSS: torch.Tensor) -> Image.Image:
    levels = (image_CSS.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
