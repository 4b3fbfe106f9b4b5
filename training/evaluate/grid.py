"""The sample grid: what was seen, what was drawn from it, and what is true, one row an identity.

    inputs | the target's visible patches | drawing | target

The drawing is shown on the face alone, which is all that its loss looks at.

Letters in names give the shape:
    C  colour channels (3, RGB)    S  side of an image in pixels
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.batch import Batch
from training.evaluate.sheet import draw_sheet, input_columns
from training.models.clip import patches_shown
from training.models.mtd import MtdStage

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
    captions, shown = input_columns(batch, stage.size.side, rows)
    lines = []
    for row, inputs in shown:
        target_CSS, face_SS = drawing.targets_BNCSS[row, 0].cpu(), drawing.face_BNSS[row, 0].cpu()
        seen_SS = patches_shown(drawing.visible_BNV[row, :1].cpu(), stage.size)[0]
        drawn_CSS = drawing.drawn_BNCSS[row, 0].cpu()
        lines.append([*inputs, _only(seen_SS, target_CSS), _only(face_SS, drawn_CSS), target_CSS])
    captions += [f"{stage.kept} of {stage.size.patches} patches", "drawn", "target"]
    return draw_sheet(captions, lines)


def _only(share_SS: torch.Tensor, image_CSS: torch.Tensor) -> torch.Tensor:
    return share_SS * image_CSS + (1 - share_SS) * UNSEEN
