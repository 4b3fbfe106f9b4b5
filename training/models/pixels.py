"""Converts and resizes decoded images on the device, for the networks.

uint8 is copied to the device, a quarter of the bytes of float32, and resizing there is cheap.

Letters in names give the shape:
    H  side of the decoded images, in pixels      C  colour channels (3, RGB)
    S  side of the networks' images                `_` in front: any leading dimensions
"""

from __future__ import annotations

import torch
from torch.nn import functional


def pixels(images_HHC: torch.Tensor, side: int) -> torch.Tensor:
    """Convert and resize images.

    Args:
        images_HHC: (..., H, H, 3) uint8.
        side: S.

    Returns:
        (..., 3, S, S) float32 in [0, 1]. Bicubic with antialiasing, as CLIP's images were resized.
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
    """Share of each pixel that is face.

    Args:
        masks_HH: (..., H, H) uint8: 255 is face, 0 is background.
        side: S.

    Returns:
        (..., S, S) float32 in [0, 1]: pixels on the outline have the share of their area that is face.
    """
    share_HH = masks_HH.float() / 255
    if share_HH.shape[-1] == side:
        return share_HH
    return _reduced(_reduced(share_HH, side).mT, side).mT


def _reduced(values_H: torch.Tensor, side: int) -> torch.Tensor:
    """Area-weighted mean of the values under each of `side` pixels of a row.

    Not as a matrix product, which autocast would round to bfloat16.
    """
    source = values_H.shape[-1]
    # In a unit in which the pixels of both rows have integer widths.
    starts_S = torch.arange(side, device=values_H.device) * source
    sum_S = torch.zeros((), device=values_H.device)
    for offset in range(-(-source // side) + 1):
        under_S = starts_S // side + offset
        ends_S = torch.minimum(starts_S + source, (under_S + 1) * side)
        shared_S = (ends_S - torch.maximum(starts_S, under_S * side)).clamp(min=0)
        sum_S = sum_S + values_H[..., under_S.clamp(max=source - 1)] * (shared_S / source)
    return sum_S
