"""The sample grid: images of held-out identities, one row each.

    inputs | the columns of each decoder

Letters in names give the shape:
    C  colour channels (3, RGB)    S  side of an image in pixels
    B  identities                  L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.batch import Batch
from training.evaluate.sheet import input_columns, make_sheet
from training.model import IdentityModel


@torch.no_grad()
def sample_grid(
    model: IdentityModel,
    batch: Batch,
    tokens_BLD: torch.Tensor,
    rows: int,
    names: Iterable[str] | None = None,
) -> NDArray[np.uint8]:
    """Show what the decoders make of the first identities of a batch.

    Args:
        model: in the mode and with the weights that are shown.
        batch: of held-out identities, on the CPU.
        tokens_BLD: identity tokens of its rows, on the model's device.
        rows: identities at most; damaged ones are left out.
        names: of the decoders; all of the model when None.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    here = batch.to(tokens_BLD.device)
    columns = [
        column
        for name in (model.names if names is None else names)
        for column in model.columns(name, here, tokens_BLD)
    ]
    captions, shown = input_columns(batch, rows)
    images = [column.images_BCSS.float().cpu() for column in columns]
    lines = [[*inputs, *(images_BCSS[row] for images_BCSS in images)] for row, inputs in shown]
    return make_sheet([*captions, *(column.caption for column in columns)], lines)
