"""The sizes of the networks. A configuration names one; an exported encoder contains the numbers.

The CLIP tower, the encoder on it and MTD share their width and head width, so one table covers all.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import Field, model_validator

from settings.section import Section

Count = Annotated[int, Field(ge=1)]


class ModelSize(Section):
    """The numbers that determine the shape of every parameter of encoder and MTD."""

    side: Count
    """Side of the networks' images in pixels."""
    patch: Count
    """Side of a patch in pixels; each patch is a token."""
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
    """Blocks after the tower, in encoder and MTD; the paper's 2 and 2."""
    mlp_ratio: Count = 4
    """Hidden channels of a feed-forward layer, as a multiple of the width."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelSize:
        if self.side % self.patch:
            raise ValueError(f"patch {self.patch} does not divide side {self.side}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by 4, as position embeddings need")
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
        """Number of visible patches of a target; rounded down as in masked autoencoders, at least 1.

        The paper's 0.95 keeps 12 of 256.
        """
        # In binary, 1 - 0.95 is slightly above 0.05 and 1 - 0.9 slightly below 0.1; ten digits remove the error.
        return max(1, int(round(self.patches * (1 - mask_ratio), 10)))


def _table() -> dict[str, ModelSize]:
    rows = yaml.safe_load((files(__package__) / "sizes.yaml").read_text(encoding="utf-8"))
    return {name: ModelSize.model_validate(row) for name, row in rows.items()}


SIZES = _table()
"""`sizes.yaml`, by the names that a configuration uses."""
