"""Which patches of a target the decoder sees: a pure function of the sample's seed and the image's number.

No random generator is involved, so nothing has to be saved with a checkpoint, and CPU and GPU agree to the bit:
all of it is arithmetic on 64-bit integers that wraps around.

Letters in names give the shape:
    B  identities    N  targets of an identity    P  patches of an image    V  patches that are seen
"""

from __future__ import annotations

import torch

from training.models.hashed import GOLDEN, mixed, signed

_VISIBLE_PATCHES = 0x6F6D6E692D6D7464
"""Sets these draws apart from all others that come from the same seed."""


def visible_patches(seeds_B: torch.Tensor, targets_BN: torch.Tensor, patches: int, kept: int) -> torch.Tensor:
    """Draw the patches that are seen, evenly and without repeats.

    Args:
        seeds_B: int64, one for each sample.
        targets_BN: int64: the number of each target among the images of its identity.
        patches: P.
        kept: V, 1 to P.

    Returns:
        (B, N, V) int64: numbers of patches, row by row from the top left one, in ascending order.
    """
    if not 1 <= kept <= patches:
        raise ValueError(f"{kept} of {patches} patches cannot be seen")
    streams_BN = mixed(mixed(seeds_B + signed(_VISIBLE_PATCHES))[:, None] + targets_BN)
    numbers_P = torch.arange(1, patches + 1, device=seeds_B.device)
    scores_BNP = mixed(streams_BN[..., None] + numbers_P * signed(GOLDEN))
    # Stable, so that even equal scores come out in the same order everywhere.
    first_BNV = scores_BNP.sort(dim=-1, stable=True).indices[..., :kept]
    return first_BNV.sort(dim=-1).values
