"""Groups what belongs together by the mean over all pairs: exact average linkage at a million vectors.

Two groups are joined while the mean score over all pairs between them reaches the threshold, the best two first.
So a chain of look-alikes joins nothing: each link is tested against both whole groups.

The mean over pairs of unit vectors is a product of sums, so it needs no matrix of all pairs. It reaches the
threshold only where some pair does, so pairs below the threshold are not needed. And the mean of a joined group to
a third is never above the larger of its parts' means, so all groups that are each other's nearest can be joined at
once: the result is that of joining the best two, again and again. For large groups the threshold is a little
higher (`CERTAINTY`).

Source: Murtagh, "A survey of recent advances in hierarchical clustering algorithms", 1983 (reciprocal nearest
neighbours); Sumengen et al., "Scaling hierarchical agglomerative clustering to billion-sized datasets", 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.people.search import Rows, Vectors, dots
from storage.scratch import mapped_array

NO_UNIT = -1
GROWTH = 1.1
"""Growth of the largest group after which it is checked again."""
CERTAINTY = 0.075
"""By how much the mean over very many pairs must exceed the threshold, as a part of the distance from there to 1.
Over few pairs a mean can be low by chance. Over many it is that of the two persons, and where these are one, it is
far above the threshold. Two look-alikes with many videos would make most of the false pairs."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of N rows beside their vectors.

    Attributes:
        unit: (N,) rows of one unit (0 and more) are likelier to belong together; `NO_UNIT` for none.
        bonus: added to the score of two rows of one unit.
        apart: (C, 2) rows that do not belong together, whatever their score.
    """

    unit: NDArray[np.int64]
    bonus: float
    apart: NDArray[np.int64]


def group(
    vectors: Vectors,
    first: Rows,
    second: Rows,
    least: float,
    evidence: Evidence,
    *,
    check: Callable[[NDArray[np.int64]], None] = lambda _: None,
) -> NDArray[np.int64]:
    """Average linkage.

    Args:
        vectors: (N, D), of length 1.
        first: (P,) smaller rows of all pairs whose score, the cosine and the bonus, reaches the threshold, each
            once. Others do no harm.
        second: (P,) their larger rows.
        least: the threshold: least mean score over all pairs between two groups.
        evidence: on the rows.
        check: is called with the result so far whenever the largest group has grown by a tenth; may raise. Around
            a vector that is like all others, groups grow slowly: one row in each pass over all pairs.

    Returns:
        (N,) the first row of each row's group.
    """
    state = _Groups(vectors, evidence)
    edges = state.scored(first, second)
    checked = 1.0
    while len(edges := state.allowed(edges, least)):
        joined, into = _reciprocal(edges, len(vectors))
        state.join(joined, into)
        if state.largest > GROWTH * checked:
            check(state.first)
            checked = state.largest
        edges = state.renamed(edges, np.concatenate([joined, into]))
    return state.first


def least_mean(least: float, pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) threshold of the mean over so many pairs."""
    threshold: NDArray[np.float64] = least + CERTAINTY * (1 - least) * (1 - 1 / np.sqrt(pairs))
    return threshold


@dataclass(frozen=True, eq=False)
class _Edges:
    """Pairs of groups, each named by its first row, the smaller one first; with their mean scores."""

    a: Rows
    b: Rows
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> _Edges:
        return _Edges(self.a[chosen], self.b[chosen], self.score[chosen])


class _Groups:
    """The groups so far, each named by its first row."""

    def __init__(self, vectors: Vectors, evidence: Evidence) -> None:
        count = len(vectors)
        self.first = np.arange(count, dtype=np.int64)
        self._size = np.ones(count, np.float64)
        self._sum = mapped_array(vectors.shape, vectors.dtype)
        self._sum[:] = vectors
        self._bonus = evidence.bonus
        self._apart = np.sort(evidence.apart.reshape(-1, 2), axis=1)
        rows = np.flatnonzero(evidence.unit != NO_UNIT) if evidence.bonus else np.zeros(0, np.int64)
        columns = evidence.unit[rows]
        shape = (count, int(columns.max(initial=-1)) + 1)
        self._in_unit = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)

    @property
    def largest(self) -> float:
        """Rows of the largest group."""
        return float(self._size.max(initial=0))

    def scored(self, a: Rows, b: Rows) -> _Edges:
        """Pairs of groups with their mean scores."""
        total = dots(self._sum, a, b)
        if self._in_unit.nnz:
            total += self._bonus * self._in_unit[a].multiply(self._in_unit[b]).sum(axis=1)
        return _Edges(a, b, total / (self._size[a] * self._size[b]))

    def allowed(self, edges: _Edges, least: float) -> _Edges:
        """Those that reach the threshold of their sizes and may be joined."""
        pairs = self._size[edges.a] * self._size[edges.b]
        # Sums of a thousand vectors leave an error of 1e-6 in the mean.
        chosen = edges.score >= least_mean(least, pairs) - 1e-6
        if len(self._apart):
            chosen &= ~np.isin(self._named(edges.a, edges.b), self._named(*self._apart.T))
        return edges[chosen]

    def join(self, joined: Rows, into: Rows) -> None:
        """Join pairs of groups; each group is in one pair."""
        self._sum[into] += self._sum[joined]
        self._size[into] += self._size[joined]
        if self._in_unit.nnz:
            ones = np.ones(len(joined))
            moved = csr_array((ones, (into, joined)), shape=(len(self.first),) * 2) @ self._in_unit
            self._in_unit = (self._in_unit + moved).tocsr()
        name = np.arange(len(self.first))
        name[joined] = into
        self.first = name[self.first]
        if len(self._apart):
            self._apart = np.unique(np.sort(name[self._apart], axis=1), axis=0)

    def renamed(self, edges: _Edges, changed: Rows) -> _Edges:
        """The edges between the groups after some were joined; those of changed groups are scored again."""
        is_changed = np.zeros(len(self.first), bool)
        is_changed[changed] = True
        stale = is_changed[edges.a] | is_changed[edges.b]
        a, b = self.first[edges.a[stale]], self.first[edges.b[stale]]
        keys = np.unique(self._named(np.minimum(a, b), np.maximum(a, b))[a != b])
        a, b = np.divmod(keys, len(self.first))
        again = self.scored(a.astype(np.int32), b.astype(np.int32))
        kept = edges[~stale]
        return _Edges(
            np.concatenate([kept.a, again.a]),
            np.concatenate([kept.b, again.b]),
            np.concatenate([kept.score, again.score]),
        )

    def _named(self, a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.int64]:
        named: NDArray[np.int64] = a.astype(np.int64) * len(self.first) + b
        return named


def _reciprocal(edges: _Edges, count: int) -> tuple[Rows, Rows]:
    """The groups that are each other's nearest: the larger name of each pair, and the smaller one.

    Of equally near groups the first is the nearest; then some pair always is reciprocal, so each round joins one.
    """
    score = np.full(count, -np.inf)
    for end in (edges.a, edges.b):
        np.maximum.at(score, end, edges.score)
    nearest = np.full(count, np.iinfo(np.int32).max, np.int32)
    for end, other in ((edges.a, edges.b), (edges.b, edges.a)):
        best = edges.score == score[end]
        np.minimum.at(nearest, end[best], other[best])
    mutual = (nearest[edges.a] == edges.b) & (nearest[edges.b] == edges.a)
    return edges.b[mutual], edges.a[mutual]
