"""The sample grid of the flow decoder: what was seen of a person, who is drawn from it, and how they look.

    inputs | samples | targets, which are other images of the same person

A sample has nothing to do with the targets but the person: it starts from noise.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.batch import Batch
from training.evaluate.sheet import draw_sheet, input_columns
from training.models.flow import FlowStage
from training.models.pixels import pixels

SAMPLES = 2
"""Of each person, from different noise."""
TARGETS = 2


@torch.no_grad()
def flow_grid(stage: FlowStage, batch: Batch, device: torch.device, rows: int) -> NDArray[np.uint8]:
    """Draw the first identities of a batch.

    Args:
        stage: in the mode and with the weights that are to be shown.
        batch: of held-out identities, on the CPU.
        device: where the stage is.
        rows: identities at most; damaged ones are left out.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    flow = stage.flow
    tokens_BLD = stage.identify(batch.to(device))
    way = stage.way(
        flow.side,
        flow.sample_steps,
        flow.sample_guidance,
        identity_guidance=flow.sample_identity_guidance,
    )
    seeds_B = batch.seeds_B.to(device)
    samples_SBCSS = [
        stage.sample(tokens_BLD, seeds_B + number, flow.side, way).cpu() for number in range(SAMPLES)
    ]
    targets = min(TARGETS, batch.targets_BN.shape[1])
    captions, shown = input_columns(batch, stage.size.side, rows)
    lines = []
    for row, inputs in shown:
        targets_NCSS = pixels(batch.images_BKSSC[row, batch.targets_BN[row, :targets]], flow.side)
        samples = [samples_BCSS[row] for samples_BCSS in samples_SBCSS]
        lines.append([*inputs, *samples, *targets_NCSS])
    captions += [f"sample {number + 1}" for number in range(SAMPLES)]
    captions += [f"target {number + 1}" for number in range(targets)]
    return draw_sheet(captions, lines)
