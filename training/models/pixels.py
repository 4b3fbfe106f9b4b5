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
    return _reduced(_reduced(share_HH, side).mT, side).mT


def _reduced(values_H: torch.Tensor, side: int) -> torch.Tensor:
    """The mean of the values under each of `side` pixels in a row, parts of pixels counted as parts.

    Not as a product of matrices, which autocast would round to bfloat16.
    """
    source = values_H.shape[-1]
    # In a unit in which the pixels of both rows are whole numbers wide.
    starts_S = torch.arange(side, device=values_H.device) * source
    sum_S = torch.zeros((), device=values_H.device)
    for offset in range(-(-source // side) + 1):
        under_S = starts_S // side + offset
        ends_S = torch.minimum(starts_S + source, (under_S + 1) * side)
        shared_S = (ends_S - torch.maximum(starts_S, under_S * side)).clamp(min=0)
        sum_S = sum_S + values_H[..., under_S.clamp(max=source - 1)] * (shared_S / source)
    return sum_S
