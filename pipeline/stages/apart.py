"""Points far apart from each other: how far eight poses of a track can be apart, and which eight are far enough.

Distances are Euclidean; `pipeline.stages.select` scales poses so that they are degrees.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""Slack in comparing distances, in degrees: far above rounding errors, far below what a pose means."""

MOST_STEPS = 5000
"""Bound of the exact search, about half a second at 400 points."""

Points = NDArray[np.float64]
"""(N, 3) poses, scaled so that their Euclidean distance is the pose distance in degrees."""


def farthest_points(points: Points, count: int) -> tuple[list[int], float]:
    """Farthest-point sampling.

    Args:
        points: (N, 3).
        count: how many to pick.

    Returns:
        The picked rows, each once, starting with the one nearest to the mean, and the least distance between
        two of them; 0 when there are fewer than `count` points.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; at least half of the
    best separation possible.
    """
    if len(points) < max(count, 1):
        return list(range(len(points))), 0.0
    picked = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.linalg.norm(points - points[picked[0]], axis=1)
    separation = np.inf
    while len(picked) < count:
        distance[picked] = -1.0  # of equal points, each is picked once
        farthest = int(distance.argmax())
        separation = min(separation, float(distance[farthest]))
        picked.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(points - points[farthest], axis=1))
    return picked, separation


def points_apart(points: Points, count: int, least: float) -> list[int] | None:
    """`count` points of which no two are nearer than `least`; None when there are none.

    Farthest-point sampling answers most cases. Between its separation and twice that, a search decides: of a
    point and those too near to it, some largest set contains one. It gives up after `MOST_STEPS`.

    Args:
        points: (N, 3), preferred ones first.
        count: how many to pick.
        least: distance.
    """
    rows, separation = farthest_points(points, count)
    if len(points) < count or separation >= least - ROUNDING:
        return rows if len(points) >= count else None
    if 2 * separation < least - ROUNDING:
        return None
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = [_bits(np.flatnonzero(row < least - ROUNDING)) for row in distances]
    return _independent(near, (1 << len(points)) - 1, count, [MOST_STEPS])


def _independent(near: list[int], free: int, count: int, steps: list[int]) -> list[int] | None:
    """`count` of the `free` points, none in another's `near`, as bit sets in which each point is near itself."""
    if count == 0:
        return []
    steps[0] -= 1
    if steps[0] < 0 or not _may_hold(near, free, count):
        return None
    lonely = min(_rows(free), key=lambda row: (near[row] & free).bit_count())
    options = sorted(_rows(near[lonely] & free), key=lambda row: ((near[row] & free).bit_count(), row))
    for row in options:
        found = _independent(near, free & ~near[row], count - 1, steps)
        if found is not None:
            return [row, *found]
        free &= ~(1 << row)
        if not _may_hold(near, free, count):
            return None
    return None


def _may_hold(near: list[int], free: int, count: int) -> bool:
    """Whether `free` needs at least `count` cliques of points near each other: each gives one point at most."""
    for _ in range(count):
        if not free:
            return False
        clique = free
        while clique:
            row = (clique & -clique).bit_length() - 1
            free &= ~(1 << row)
            clique &= near[row] & ~(1 << row)
    return True


def _bits(rows: NDArray[np.int64]) -> int:
    return sum(1 << int(row) for row in rows)


def _rows(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
