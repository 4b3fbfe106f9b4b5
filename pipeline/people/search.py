"""Finds all pairs of identities that are alike: exact, in blocks of bounded memory.

134,077 identities have 9 billion pairs. A block of the matrix of cosines is one product of matrices, computed by
one thread; several blocks run at a time. Pairs near the threshold are computed again in double precision, so that
neither the machine nor the number of its cores decides on a pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from storage.ahead import map_ahead

ROWS, COLUMNS = 2048, 8192
"""Size of a block: 64 MiB of cosines."""
ROUNDING = 1e-4
"""Slack of the search in single precision; its error at 512 dimensions is below 1e-6."""
DECIMALS = 6
"""To which cosines are rounded, far above the error of double precision: equal pairs tie on every machine."""
MOST_PAIRS = 50_000_000
"""Pairs that the search returns, for which it takes about 4 GB; more are a threshold that separates nothing."""
MOST_WORKERS = 16
"""Each holds a block and what it finds in it."""
DOTS_AT_ONCE = 2**16

Rows = NDArray[np.int32]
Vectors = NDArray[np.float32]


class TooManyPairs(ValueError):  # noqa: N818 - names the fault
    """More pairs reach the threshold than can be linked."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of rows, sorted by them.

    Attributes:
        first: (P,) the smaller row.
        second: (P,) the larger row.
        cosine: (P,) of their vectors.
    """

    first: Rows
    second: Rows
    cosine: Vectors

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, vectors: Vectors, first: Rows, second: Rows) -> Pairs:
        """Pairs with their cosines."""
        return cls(first, second, dots(vectors, first, second).astype(np.float32))

    def at_least(self, cosine: float) -> Pairs:
        """Those that reach a cosine."""
        chosen = self.cosine >= np.float32(cosine)
        return Pairs(self.first[chosen], self.second[chosen], self.cosine[chosen])


def similar_pairs(vectors: Vectors, least_cosine: float) -> Pairs:
    """All pairs of unit vectors whose cosine reaches a threshold.

    Args:
        vectors: (N, D), of length 1.
        least_cosine: the threshold.

    Raises:
        TooManyPairs: there are more than `MOST_PAIRS`.
    """
    return pairs_among([np.arange(len(vectors), dtype=np.int32)], vectors, least_cosine)


def pairs_among(parts: Sequence[Rows], vectors: Vectors, least_cosine: float) -> Pairs:
    """The pairs of rows of the same part whose cosine reaches a threshold.

    Args:
        parts: rows of each part, ascending; a row is in one part at most.
        vectors: (N, D), of length 1.
        least_cosine: the threshold.

    Raises:
        TooManyPairs: there are more than `MOST_PAIRS`.
    """

    def search(block: _Block) -> tuple[Rows, Rows]:
        cosines = vectors[block.rows] @ vectors[block.columns].T
        a, b = np.divmod(np.flatnonzero(cosines >= least_cosine - ROUNDING), cosines.shape[1])
        first, second = block.rows[a], block.columns[b]
        above = second > first
        return first[above], second[above]

    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    found: list[tuple[Rows, Rows]] = []
    total = 0
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        for some in map_ahead(search, _blocks(parts), pool, 2 * workers):
            found.append(some)
            total += len(some[0])
            if total > MOST_PAIRS:
                count = sum(len(rows) * (len(rows) - 1) // 2 for rows in parts)
                raise TooManyPairs(
                    f"more than {MOST_PAIRS:,} of {count:,} pairs have a cosine of {least_cosine:g} or more"
                )
    first = np.concatenate([np.zeros(0, np.int32), *(rows for rows, _ in found)])
    second = np.concatenate([np.zeros(0, np.int32), *(columns for _, columns in found)])
    order = np.lexsort((second, first))
    return Pairs.of(vectors, first[order], second[order]).at_least(least_cosine)


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows that are compared with others of the same part."""

    rows: Rows
    columns: Rows


def _blocks(parts: Sequence[Rows]) -> Iterator[_Block]:
    for part in parts:
        for row in range(0, len(part), ROWS):
            for column in range(row // COLUMNS * COLUMNS, len(part), COLUMNS):
                yield _Block(part[row : row + ROWS], part[column : column + COLUMNS])


def dots(vectors: Vectors, first: Rows, second: Rows) -> NDArray[np.float64]:
    """(P,) products of pairs of rows, in double precision, rounded to `DECIMALS`.

    Args:
        vectors: (N, D).
        first: (P,) rows.
        second: (P,) rows.
    """
    products = np.empty(len(first), np.float64)
    for part in _parts(len(first)):
        a, b = vectors[first[part]].astype(np.float64), vectors[second[part]]
        products[part] = np.einsum("ij,ij->i", a, b)
    return products.round(DECIMALS)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + DOTS_AT_ONCE) for start in range(0, count, DOTS_AT_ONCE))
