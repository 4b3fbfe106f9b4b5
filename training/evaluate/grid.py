"""The sample grid: what was seen, what was drawn from it, and what is true, one row an identity.

    inputs | the target's visible patches | drawing | target

The drawing is shown on the face alone, which is all that its loss looks at.

Letters in names give the shape:
    C  colour channels (3, RGB)    S  side of an image in pixels    T  side of a tile in the grid
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.batch import Batch
from training.models.clip import patches_shown
from training.models.mtd import MtdStage
from training.models.pixels import pixels

TILE_PX = 160
GAP_PX = 6
CAPTION_PX = 30
FONT_PX = 15
PAPER = (255, 255, 255)
INK = (60, 60, 60)
UNSEEN = 0.5
"""Grey of what is not shown."""


@torch.no_grad()
def sample_grid(stage: MtdStage, batch: Batch, device: torch.device, rows: int) -> NDArray[np.uint8]:
    """Draw the first target of the first identities of a batch.

    Args:
        stage: in the mode and with the weights that are to be shown.
        batch: of held-out identities, on the CPU.
        device: where the stage is.
        rows: identities at most; damaged ones are left out.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    here = batch.to(device)
    drawing = stage.draw(here, stage.identify(here))
    lines = []
    for row in [row for row, valid in enumerate(batch.valid_B.tolist()) if valid][:rows]:
        numbers = batch.inputs_BM[row][batch.input_valid_BM[row]]
        inputs_MCSS = pixels(batch.images_BKSSC[row, numbers], stage.size.side)
        target_CSS, face_SS = drawing.targets_BNCSS[row, 0].cpu(), drawing.face_BNSS[row, 0].cpu()
        seen_SS = patches_shown(drawing.visible_BNV[row, :1].cpu(), stage.size)[0]
        drawn_CSS = drawing.drawn_BNCSS[row, 0].cpu()
        missing = [None] * (batch.inputs_BM.shape[1] - len(inputs_MCSS))
        lines.append(
            [*inputs_MCSS, *missing, _only(seen_SS, target_CSS), _only(face_SS, drawn_CSS), target_CSS]
        )
    captions = [f"input {number + 1}" for number in range(batch.inputs_BM.shape[1])]
    captions += [f"{stage.kept} of {stage.size.patches} patches", "drawn", "target"]
    return draw_sheet(captions, lines)


def _only(share_SS: torch.Tensor, image_CSS: torch.Tensor) -> torch.Tensor:
    return share_SS * image_CSS + (1 - share_SS) * UNSEEN


def draw_sheet(captions: list[str], lines: list[list[torch.Tensor | None]]) -> NDArray[np.uint8]:
    """Images (3, S, S) in [0, 1] in rows, on a sheet with a caption above each column; (H, W, 3) uint8, RGB."""
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
