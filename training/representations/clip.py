"""CLIP as a representation: all tokens of its vision tower, class token first. It is never trained.

Source: the baseline "CLIP" of Omni-ID, section 4.1.

Letters in names give the shape:
    B  identities    M  images of one    P  tokens of an image (257 of ViT-H-14)    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from training.data.needs import Needs
from training.models.clip import ClipTower
from training.models.pixels import pixels
from training.models.pretrained import EncoderConfig
from training.models.sizes import ModelSize
from training.representations.base import Inputs
from training.representations.combine import Combine, combined
from training.representations.module import RepresentationModule


class ClipRepresentation(RepresentationModule):
    """The tokens of CLIP's vision tower, behind its last norm.

    Args:
        size: of the tower.
        combine: tokens of several images.
        inputs: images of a person in its training, which `concat` keeps to; None when not known.
    """

    kind = "clip"

    def __init__(self, size: ModelSize, combine: Combine = "concat", inputs: int | None = None) -> None:
        super().__init__(size.width, Needs(size.side), inputs if combine == "concat" else None)
        self.size = size
        self.combine: Combine = combine
        self.clip = ClipTower(size)
        self.requires_grad_(False)

    def features(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """Tokens of each image, (B, M, P, D)."""
        pixels_BMCSS = pixels(inputs.images_BMSSC, self.size.side)
        tokens_NPD = self.clip(pixels_BMCSS.flatten(0, 1), class_token=True)
        return (tokens_NPD.unflatten(0, pixels_BMCSS.shape[:2]),)

    def tokens(self, features: tuple[torch.Tensor, ...], valid_BM: torch.Tensor | None) -> torch.Tensor:
        """Identity tokens (B, M P, D), or (B, P, D)."""
        return combined(features[0], valid_BM, self.combine)

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.clip.visual.transformer.resblocks

    def file_config(self) -> EncoderConfig:
        """See `RepresentationModule.file_config`."""
        return EncoderConfig(kind=self.kind, size=self.size, combine=self.combine)
