"""RankMe: how many dimensions the identity tokens of held-out identities use.

When a representation collapses, so that it gives nearly the same tokens for all identities or varies along a few
directions only, this number falls long before losses show it.

Letters in names give the shape:
    B  identities    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.encoded import Encoded, Gather, single_rank


def rankme(batches: Iterable[Encoded], *, gather: Gather = single_rank) -> float | None:
    """Effective rank of the identities' mean tokens.

    Args:
        batches: this rank's held-out identities.
        gather: an all-gather over the ranks; all get the same result.

    Returns:
        Between 1 and the smaller of D and one less than the number of identities; None for fewer than two.
    """
    own: list[tuple[str, list[float]]] = []
    for held_out in batches:
        means = held_out.mean_BD.tolist()
        own += [(key, means[row]) for row, key, _ in held_out.valid_rows()]
    found = sorted(row for rows in gather(own) for row in rows)  # the same on any number of ranks
    return effective_rank(np.array([row for _, row in found])) if len(found) > 1 else None


def effective_rank(rows_BD: NDArray[np.floating[Any]]) -> float:
    """The exponential of the entropy of the singular values, of rows minus their mean.

    Source: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised
    representations by their rank", 2023, equation 1; without the mean, which all identities share.
    """
    if not np.isfinite(rows_BD).all():
        return float("nan")
    values = np.linalg.svd(rows_BD - rows_BD.mean(axis=0), compute_uv=False)
    if not values.sum():
        return 1.0
    share = values / values.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))
