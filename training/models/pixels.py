"""Decoded images become what the networks take, on the device.

uint8 crosses to the device, a quarter of the bytes of floats, and resizing there costs next to nothing.

Letters in names give the shape:
    H  side of the decoded images, in pixels      C  colour channels (3, RGB)
    S  side that the networks take                `_` in front: any leading dimensions
"""

from __future__ import annotations

import torch
from torch.nn import functional


def pixels(images_HHC: torch.Tensor, side: int) -> torch.Tensor:
    """Images as the networks take them.

    Args:
        images_HHC: (..., H, H, 3) uint8.
        side: S.

    Returns:
        (..., 3, S, S) float32 in [0, 1]. Bicubic with antialiasing, as CLIP's own images were reduced.
    """
    planes = images_HHC.movedim(-1, -3).float() / 255
    if planes.shape[-1] == side:
        return planes
    flat = planes.reshape(-1, *planes.shape[-3:])
    flat = functional.interpolate(
        flat, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    # Bicubic overshoots beside hard edges.
    return flat.clamp(0, 1).reshape(*planes.shape[:-2], side, side)


def face_share(masks_HH: torch.Tensor, side: int) -> torch.Tensor:
    """How much of each pixel is face.

    Args:
        masks_HH: (..., H, H) uint8: 255 is face, 0 is everything else.
        side: S.

    Returns:
        (..., S, S) float32 in [0, 1]: a pixel on the outline counts for the part of it that is face.
    """
    share_HH = masks_HH.float() / 255
    if share_HH.shape[-1] == side:
        return share_HH
    overlap_SH = _overlap(share_HH.shape[-1], side, share_HH.device)
    # In whole precision: a product in bfloat16 would round the outline.
    with torch.autocast(share_HH.device.type, enabled=False):
        return overlap_SH @ share_HH @ overlap_SH.T


def _overlap(source: int, target: int, device: torch.device) -> torch.Tensor:
    """Of each of `target` pixels in a row, the parts that lie on each of `source` pixels in the same space."""
    # In a unit in which both kinds of pixels are whole numbers wide.
    starts_S1 = torch.arange(target, device=device)[:, None] * source
    starts_H = torch.arange(source, device=device) * target
    ends_SH = torch.minimum(starts_S1 + source, starts_H + target)
    shared_SH = (ends_SH - torch.maximum(starts_S1, starts_H)).clamp(min=0)
    return shared_SH.float() / source
