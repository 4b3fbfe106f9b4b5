"""The visible patches of a target: a pure function of the sample's seed and the image's index.

No random generator is involved, so a checkpoint needs no state. 64-bit integer arithmetic that wraps around gives
the same patches on CPU and GPU.

Letters in names give the shape:
    B  identities    N  targets of an identity    P  patches of an image    V  visible patches
"""

from __future__ import annotations

import torch

from training.models.hashed import GOLDEN, mixed, signed

_VISIBLE_PATCHES = 0x6F6D6E692D6D7464
"""Separates these random numbers from all others of the same seed."""


def visible_patches(seeds_B: torch.Tensor, targets_BN: torch.Tensor, patches: int, kept: int) -> torch.Tensor:
    """Sample the visible patches, uniformly and without replacement.

    Args:
        seeds_B: int64, one for each sample.
        targets_BN: int64, the index of each target among the images of its identity.
        patches: P.
        kept: V, 1 to P.

    Returns:
        (B, N, V) int64: indices of patches in row-major order, ascending.
    """
    if not 1 <= kept <= patches:
        raise ValueError(f"{kept} of {patches} patches cannot be visible")
    streams_BN = mixed(mixed(seeds_B + signed(_VISIBLE_PATCHES))[:, None] + targets_BN)
    numbers_P = torch.arange(1, patches + 1, device=seeds_B.device)
    scores_BNP = mixed(streams_BN[..., None] + numbers_P * signed(GOLDEN))
    # Stable, so that equal scores have the same order on every device.
    first_BNV = scores_BNP.sort(dim=-1, stable=True).indices[..., :kept]
    return first_BNV.sort(dim=-1).values
