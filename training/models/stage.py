"""What the trainer needs of a stage: a module that turns a batch into a loss, and says how it is made of blocks.

The trainer (`training.engine`) knows no decoder. A new stage is a new module of this shape, which `build.py` makes
from a configuration and `training/evaluate/grids.py` has a sample grid for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from training.data.batch import Batch
from training.models.encoder import OmniIDEncoder


class Stage(Protocol):
    """A trainable module; every parameter with `requires_grad` must get a gradient in each step.

    The loss is a sum over parts, such as target images. The trainer divides the sum over all micro-batches and
    processes by the number of parts in all of them, so the mean is exact however the batch is cut up.
    """

    METHODS: tuple[str, ...]
    """Methods besides the call that run the networks; whoever wraps the module (FSDP) must know them."""
    encoder: OmniIDEncoder
    frozen_digest: str
    """Of weights that are not trained, and so in no checkpoint; empty when there are none."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The loss of a micro-batch as a sum over its parts, () float32."""

    def parts(self, batch: Batch) -> int:
        """How many parts the loss of a micro-batch is a sum over, from tensors on the CPU."""

    def blocks(self) -> Iterable[nn.Module]:
        """The modules of equal shape that are checkpointed, compiled and sharded one by one, innermost first."""
