"""How alike the identity tokens of one identity are: near 1, a representation says the same in all of them.

Letters in names give the shape:
    B  identities    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from training.evaluate.encoded import Encoded, Gather, single_rank


def token_similarity(tokens_LD: torch.Tensor) -> float:
    """Mean cosine of two different identity tokens of one identity; NaN of a single token."""
    unit_LD = functional.normalize(tokens_LD.float(), dim=1)
    count = len(unit_LD)
    if count == 1:
        return float("nan")
    total = float((unit_LD @ unit_LD.T).sum()) - count
    return total / (count * (count - 1))


def mean_token_similarity(batches: Iterable[Encoded], *, gather: Gather = single_rank) -> float | None:
    """Mean of `token_similarity` over held-out identities.

    Args:
        batches: this rank's held-out identities.
        gather: an all-gather over the ranks; all get the same result.

    Returns:
        Between -1 and 1; None without an identity, NaN where identities have a single token.
    """
    own = [
        (key, token_similarity(held_out.tokens_BLD[row]))
        for held_out in batches
        for row, key, _ in held_out.valid_rows()
    ]
    found = sorted(row for rows in gather(own) for row in rows)  # the same on any number of ranks
    return sum(value for _, value in found) / len(found) if found else None
