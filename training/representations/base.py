"""What the trainer needs of a representation.

Letters in names give the shape:
    B  identities    M  images of one, at most    S  side in pixels    C  colour channels (3, RGB)
    L  identity tokens    D  channels of a token  K  keypoints (5)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from training.data.needs import Needs


@dataclass(frozen=True)
class Inputs:
    """Images to encode.

    Attributes:
        images_BMSSC: uint8, RGB, at the decoded size.
        valid_BM: bool, False where there is no image; all are real when None.
        keypoints_BMK2: x and y in [0, 1] of the image's side, in the order of `faces.align`; None unless the
            representation needs them.
    """

    images_BMSSC: torch.Tensor
    valid_BM: torch.Tensor | None = None
    keypoints_BMK2: torch.Tensor | None = None


class Representation(Protocol):
    """An `nn.Module`; what is pretrained and never trained in it has no gradient."""

    width: int
    """D."""
    crop_scale: float | None
    """How the images of its training were cut (`faces.crop`); None when not known."""
    needs: Needs
    """What it reads of a batch."""
    fixed_inputs: int | None
    """Number of images of a person that it was trained on, when it takes no other; None when any."""

    def encode(self, inputs: Inputs) -> torch.Tensor:
        """Identity tokens (B, L, D)."""

    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks, which are checkpointed, compiled and sharded one by one."""

    def save_pretrained(self, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write it to a directory that `training.representations.build.load_representation` reads.

        Args:
            folder: made when missing.
            weights: instead of its own, such as their EMA.
        """

    def state_dict(self) -> dict[str, Any]:
        """Of the module."""
