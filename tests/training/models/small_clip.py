"""A real CLIP model, text tower and all, whose vision tower is tiny."""

from __future__ import annotations

import open_clip
import torch

from training.models.sizes import SIZES

TINY = SIZES["tiny"]


def whole_clip() -> open_clip.CLIP:
    """The model, with the same random weights each time."""
    torch.manual_seed(5)
    return open_clip.CLIP(
        embed_dim=32,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=TINY.layers,
            width=TINY.width,
            head_width=TINY.head_width,
            patch_size=TINY.patch,
            image_size=TINY.side,
        ),
        text_cfg=open_clip.CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=1),
    )
