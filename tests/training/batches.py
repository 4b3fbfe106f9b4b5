"""Parts of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch

from training.data.batch import Batch


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, in the order given."""
    picked = {
        field.name: value[list(rows)] if isinstance(value, torch.Tensor) else value
        for field in fields(batch)
        if field.name != "keys"
        for value in [getattr(batch, field.name)]
    }
    return Batch(**picked, keys=tuple(batch.keys[row] for row in rows))
