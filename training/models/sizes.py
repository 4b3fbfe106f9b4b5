"""The sizes of the networks, as plain numbers: a configuration names one, an exported encoder writes its out.

The CLIP tower, the encoder on it and the decoder share their width and head width, so one table says it all.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from settings.section import Section

Count = Annotated[int, Field(ge=1)]


class ModelSize(Section):
    """Numbers that fix the shape of every parameter of encoder and decoder."""

    side: Count
    """Pixels along a side of the images that the networks see."""
    patch: Count
    """Pixels along a side of a patch; each patch is a token."""
    width: Count
    """Channels of every token, identity tokens included."""
    layers: Count
    """Transformer blocks of the CLIP tower."""
    head_width: Count
    """Channels of an attention head."""
    queries: Count
    """Identity tokens of a person (L in Omni-ID)."""
    cross_blocks: Count = 2
    self_blocks: Count = 2
    """Blocks behind the tower, in encoder and decoder alike; the paper's 2 and 2."""
    mlp_ratio: Count = 4
    """Hidden channels of a feed-forward layer, in widths."""

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelSize:
        if self.side % self.patch:
            raise ValueError(f"patch {self.patch} does not divide side {self.side}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by 4, which positions need")
        if self.width % self.head_width:
            raise ValueError(f"head_width {self.head_width} does not divide width {self.width}")
        return self

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // self.patch

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid**2

    @property
    def heads(self) -> int:
        """Attention heads of every block."""
        return self.width // self.head_width

    def kept(self, mask_ratio: float) -> int:
        """Patches of a target that the decoder sees; rounded down as masked autoencoders do, 1 at least.

        The paper's 0.95 keeps 12 of 256.
        """
        # 1 - 0.95 is a hair above 0.05, 1 - 0.9 a hair below 0.1: ten digits take the binary noise away.
        return max(1, int(round(self.patches * (1 - mask_ratio), 10)))


SIZES = {
    # Omni-ID section 3.2: CLIP ViT-H-14 at its own resolution, L = 256 tokens of C = 1280.
    "paper": ModelSize(side=224, patch=14, width=1280, layers=32, head_width=80, queries=256),
    # As wide as ViT-S and half as deep, for experiments on one GPU.
    "small": ModelSize(side=112, patch=14, width=384, layers=6, head_width=64, queries=64),
    # For tests and the demo: a step takes a fraction of a second on one core.
    "tiny": ModelSize(side=64, patch=8, width=128, layers=2, head_width=32, queries=16),
}
"""By the names that a configuration uses."""
