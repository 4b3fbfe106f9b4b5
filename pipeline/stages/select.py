"""Choose eight images of a track by quality, in different head poses.

Poses are over-clustered (Omni-ID, section 3.4): more clusters than images, so that poor clusters can be left
out. Quality is by far the most expensive measurement, so only a few candidates in each cluster are scored.

Distances between poses are Euclidean in (yaw, pitch, weight * roll), in degrees.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Selection
from pipeline.rejection import Rejection
from pipeline.stages.apart import ROUNDING, Points, farthest_points, points_apart
from shards.schema import IMAGES_PER_IDENTITY, Reason

SEPARATION_SHARE = 0.4
"""Least separation of chosen images, as a part of what farthest-point sampling reaches."""
WIDE_DEG = 6.0
"""A range of yaw or pitch from which on its ends are always among the images."""
END_SHARE = 0.05
"""How near to an end of the range of all frames a candidate has to be to represent it, as a part of the range."""
END_TOLERANCE = 0.1
"""How near to an end of the range of the clusters' images an image may be to be chosen for it."""
LEAST_NEAR_END = 2
"""At least this many of the outermost frames may represent an end, so that quality has a choice."""


@dataclass(frozen=True)
class FrameTable:
    """The measurements of N frames that the choice needs.

    Attributes:
        pose_deg: (N, 3) yaw, pitch, roll.
        eyes_closed: (N,) whether the eyes are closed, for this person.
    """

    pose_deg: Points
    eyes_closed: NDArray[np.bool_]


def pose_points(pose_deg: Points, roll_weight: float) -> Points:
    """Poses (N, 3) as points whose distance is the pose distance."""
    return pose_deg * (1.0, 1.0, roll_weight)


def cluster_by_pose(points: Points, clusters: int) -> NDArray[np.int64]:
    """(N,) cluster numbers by k-means, of at most `clusters` and at most as many as there are distinct poses."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    count = min(clusters, len(np.unique(points, axis=0)))
    with threadpool_limits(1):  # another order of summing would give other clusters
        labels: NDArray[np.int64] = KMeans(count, n_init=4, random_state=0).fit_predict(points)
    return labels.astype(np.int64)


def are_closed(eyes_open: NDArray[np.float64], config: Selection) -> NDArray[np.bool_]:
    """(N,) whether the eyes are closed, given how open they are in all N frames of a track."""
    closed: NDArray[np.bool_] = eyes_open < config.min_relative_eyes_open * np.quantile(eyes_open, 0.9)
    return closed


@dataclass(frozen=True)
class Pick:
    """A frame that may be chosen.

    Attributes:
        row: of the track's usable frames.
        cluster: the pose cluster that it may represent.
        rank: its place among the picks of its cluster, as far as it is known without the quality network.
    """

    row: int
    cluster: int
    rank: int


@dataclass(frozen=True)
class Picks:
    """The frames of a track that may be chosen, in time order, and those found to show another identity."""

    picks: list[Pick]
    others: list[int]


def candidates(
    frames: FrameTable,
    promise: NDArray[np.float64],
    config: Selection,
    is_same_person: Callable[[int], bool] = lambda _: True,
) -> Picks | Rejection:
    """The frames worth scoring: the most promising ones of each pose cluster.

    Args:
        frames: all usable frames of a track.
        promise: (N,) see `promise_of`.
        config: how many.
        is_same_person: whether a frame shows the track's person; asked of possible picks only, because the answer
            may cost an embedding.

    Returns:
        The picks, or a rejection when the head is too still for eight images.
    """
    points = pose_points(frames.pose_deg, config.roll_weight)
    _, separation = farthest_points(points, IMAGES_PER_IDENTITY)
    # Farthest-point sampling finds at least half of the best possible separation.
    if 2 * separation < config.min_separation_deg:
        return _too_few_poses(f"{IMAGES_PER_IDENTITY} poses are at most", 2 * separation, config)
    labels = cluster_by_pose(points, config.clusters)
    order = np.lexsort((-promise, frames.eyes_closed))
    place = np.argsort(order)
    open_rows = order[~frames.eyes_closed[order]]
    near_ends = _near_ends(points[open_rows], labels[open_rows])
    taken: list[int] = []
    others: list[int] = []
    for cluster in np.unique(labels):
        of_ends = [open_rows[rows].tolist() for rows in near_ends.get(int(cluster), [])]
        in_order = [
            *(rows[0] for rows in of_ends),
            *sorted({row for rows in of_ends for row in rows}, key=lambda row: place[row]),
            *order[labels[order] == cluster].tolist(),
        ]
        own: list[int] = []
        for row in dict.fromkeys(in_order):
            if len(own) == config.candidates_per_cluster:
                break
            (own if is_same_person(row) else others).append(row)
        taken += own
    if points_apart(points[taken], IMAGES_PER_IDENTITY, config.min_separation_deg) is None:
        # The most promising frames are too near to each other: eight that are far enough apart come after them.
        spread = points_apart(points[order], IMAGES_PER_IDENTITY, config.min_separation_deg) or []
        for row in order[sorted(spread)].tolist():
            if row not in taken:
                (taken if is_same_person(row) else others).append(row)
    return Picks(_ranked(taken, labels), others)


def _ranked(rows: list[int], labels: NDArray[np.int64]) -> list[Pick]:
    """Picks in time order, ranked within their clusters by their place among `rows`."""
    seen: Counter[int] = Counter()
    picks: list[Pick] = []
    for row in rows:
        cluster = int(labels[row])
        picks.append(Pick(row, cluster, seen[cluster]))
        seen[cluster] += 1
    return sorted(picks, key=lambda pick: pick.row)


def promise_of(sharpness: NDArray[np.float64], stored_bytes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) how good each image of a track promises to be without the quality network, higher is better.

    The sum of its ranks in sharpness and in bytes: at one JPEG quality, an image takes more bytes the more detail
    it shows. Within a track the bytes follow PIQE more closely (median rank correlation .39 over 27 tracks of
    real clips) than sharpness does (.14).

    Args:
        sharpness: (N,) variance of the Laplacian.
        stored_bytes: (N,) length of the stored image.
    """
    return ranks(sharpness) + ranks(stored_bytes)


def ranks(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) place of each value among all, 0 for the least to 1 for the largest; equal values share one."""
    _, place = np.unique(values, return_inverse=True)
    return place / max(int(place.max(initial=0)), 1)


def _near_ends(points: Points, labels: NDArray[np.int64]) -> dict[int, list[NDArray[np.int64]]]:
    """The frames that represent the clusters at the ends of the yaw and pitch ranges, for each end of each.

    The best frame of such a cluster may lie anywhere in it, and the range would shrink by a part of its width.

    Args:
        points: (N, 3), most promising first.
        labels: (N,) clusters.

    Returns:
        Cluster -> rows near each of its ends, most promising first.
    """
    found: dict[int, list[NDArray[np.int64]]] = {}
    for axis, end in _end_rows(points):
        members = np.flatnonzero(labels == labels[end])
        distance = np.abs(points[members, axis] - points[end, axis])
        outermost = np.sort(distance)[:LEAST_NEAR_END][-1]
        near = members[distance <= max(outermost, END_SHARE * np.ptp(points[:, axis]))]
        found.setdefault(int(labels[end]), []).append(near)
    return found


def choose(
    frames: FrameTable, clusters: NDArray[np.int64], badness: NDArray[np.float64], config: Selection
) -> list[int] | Rejection:
    """Choose eight of the scored candidates: quality decides, under a minimum pose separation.

    Each cluster is represented by its best image. Images with closed eyes, and second images of a cluster, are
    used only when eight poses cannot be reached without them. The representatives are then picked as `pick_apart`
    describes.

    Args:
        frames: N candidates.
        clusters: (N,) pose cluster of each.
        badness: (N,) lower is better.
        config: the least separation.

    Returns:
        Eight row numbers in ascending order, or a rejection.
    """
    if len(badness) < IMAGES_PER_IDENTITY:
        detail = f"{len(badness)} images may be chosen, {IMAGES_PER_IDENTITY} needed"
        return Rejection(Reason.TOO_FEW_POSES, detail)
    points = pose_points(frames.pose_deg, config.roll_weight)
    best_first = np.lexsort((np.arange(len(badness)), badness, frames.eyes_closed))
    of_cluster: dict[int, int] = {}
    for row in best_first:
        of_cluster.setdefault(int(clusters[row]), int(row))
    rows = np.array(list(of_cluster.values()), dtype=np.int64)
    reached = 0.0
    for subset in (rows[~frames.eyes_closed[rows]], rows, best_first):
        picked, separation = pick_apart(points[subset], IMAGES_PER_IDENTITY, config.min_separation_deg)
        if picked:
            return sorted(int(row) for row in subset[picked])
        reached = max(reached, separation)
    return _too_few_poses(f"the best {IMAGES_PER_IDENTITY} images of different poses are", reached, config)


def pick_apart(points: Points, count: int, least: float) -> tuple[list[int], float]:
    """Take points in order, the ends of the range of poses before them, none too near to one taken.

    The separation is a part of what farthest-point sampling reaches, less than half, where enough are always
    found: each point taken is nearer than that to one of the sampled points at most. Where this is below `least`,
    `least` is tried, and after that a search that finds enough wherever there are.

    Args:
        points: (N, 3), best first.
        count: how many to pick.
        least: least separation.

    Returns:
        The picked rows, none when there are too few; and the separation that is possible.
    """
    _, reachable = farthest_points(points, count)
    separation = max(SEPARATION_SHARE * reachable, least)
    taken: list[int] = []
    for row in [*ends(points), *range(len(points))]:
        distances = np.linalg.norm(points[taken] - points[row], axis=1)
        if (distances >= separation - ROUNDING).all() and row not in taken:
            taken.append(row)
        if len(taken) == count:
            return taken, separation
    return _improved(points, points_apart(points, count, least) or [], least), reachable


def _improved(points: Points, picked: list[int], least: float) -> list[int]:
    """The picked rows, each replaced by the first row that is as far from the others as is asked for."""
    picked = sorted(picked, reverse=True)  # the worst first
    for place in range(len(picked)):
        others = picked[:place] + picked[place + 1 :]
        distances = np.linalg.norm(points[: picked[place] + 1, None] - points[others], axis=2)
        free = (distances >= least - ROUNDING).all(axis=1)
        free[[row for row in others if row < len(free)]] = False
        picked[place] = int(np.flatnonzero(free)[0])
    return picked


def ends(points: Points) -> list[int]:
    """Rows at both ends of the yaw and of the pitch range, where it is wide, the wider range first.

    Args:
        points: (N, 3), best first: the first that is near enough stands for an end.
    """
    rows = []
    for axis, end in _end_rows(points):
        distance = np.abs(points[:, axis] - points[end, axis])
        rows.append(int(np.flatnonzero(distance <= END_TOLERANCE * np.ptp(points[:, axis]))[0]))
    return rows


def _end_rows(points: Points) -> list[tuple[int, int]]:
    """Axis (0 for yaw, 1 for pitch) and row of each end of a wide range, the wider range first."""
    if len(points) == 0:
        return []
    low, high = points.argmin(axis=0), points.argmax(axis=0)
    width = np.ptp(points, axis=0)
    axes = sorted((0, 1), key=lambda axis: -width[axis])
    return [(axis, int(row)) for axis in axes if width[axis] >= WIDE_DEG for row in (low[axis], high[axis])]


def _too_few_poses(found: str, separation: float, config: Selection) -> Rejection:
    # Rounded down and up, so that too little never reads as enough.
    reached = math.floor(100 * separation) / 100
    needed = math.ceil(round(100 * config.min_separation_deg, 6)) / 100
    return Rejection(Reason.TOO_FEW_POSES, f"{found} {reached:.2f} degrees apart, {needed:.2f} needed")
