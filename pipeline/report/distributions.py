"""Histograms over the images, and figures of each identity.

A dataset has a million images; the page gets counts per bin, never values per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.stages.select import pose_points
from shards.metadata import DatasetError
from shards.schema import IMAGES_PER_IDENTITY

Values = NDArray[np.float64]
BINS = 40
"""Bins that a histogram aims at; steps are round numbers, so it has 20 to 50."""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, with the quantiles of the values.

    Attributes:
        edges: (B + 1,) round numbers.
        counts: (B,).
        quantiles: 0, 5, 50, 95 and 100 per cent.
    """

    edges: Values
    counts: NDArray[np.int64]
    quantiles: tuple[float, float, float, float, float]

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class PoseMap:
    """Counts of images by yaw and pitch.

    Attributes:
        yaw_edges: (X + 1,) degrees.
        pitch_edges: (Y + 1,) degrees.
        counts: (Y, X).
        beyond: images outside of the map.
    """

    yaw_edges: Values
    pitch_edges: Values
    counts: NDArray[np.int64]
    beyond: int


@dataclass(frozen=True)
class Identities:
    """Per-identity figures of N identities, in the order of the images table.

    Attributes:
        keys: (N,).
        pose_deg: (N, 8, 3) yaw, pitch, roll.
        distances_deg: (N, 28) pose distance of each pair of images.
        quality: (N,) mean score.
        badness: (N,) mean score turned so that higher is worse.
        metric: (N,) name of the score.
    """

    keys: NDArray[np.str_]
    pose_deg: Values
    distances_deg: Values
    quality: Values
    badness: Values
    metric: NDArray[np.str_]

    @property
    def ranges_deg(self) -> Values:
        """(N, 3) largest less smallest yaw, pitch and roll."""
        return np.ptp(self.pose_deg, axis=1) if len(self.keys) else np.zeros((0, 3))


def column(table: pa.Table, name: str) -> Values:
    """A numeric column as float64."""
    values: Values = table[name].to_numpy().astype(np.float64)
    return values


def histogram(values: Values, *, step: float | None = None) -> Histogram | None:
    """Bins of round width over all values; None when there are none.

    Args:
        values: (N,), finite.
        step: width of a bin; chosen from the values when not given.
    """
    if len(values) == 0:
        return None
    low, high = float(values.min()), float(values.max())
    width = step or _round_step((high - low) / BINS)
    first = math.floor(low / width)
    last = max(math.floor(high / width) + 1, first + 1)
    edges = np.round(np.arange(first, last + 1) * width, 10)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last - first - 1)
    counts = np.bincount(places, minlength=last - first)
    five = np.quantile(values, (0, 0.05, 0.5, 0.95, 1))
    return Histogram(edges, counts, (five[0], five[1], five[2], five[3], five[4]))


def pose_map(yaw: Values, pitch: Values, step: float = 5.0) -> PoseMap:
    """Counts in squares of `step` degrees over a symmetrical map that holds all images up to 90 degrees."""

    def edges(values: Values) -> Values:
        widest = float(np.abs(values).max(initial=30.0))
        half = min(math.ceil(widest / step) * step, 90.0)
        return np.arange(-half, half + step, step)

    yaw_edges, pitch_edges = edges(yaw), edges(pitch)
    inside, _, _ = np.histogram2d(pitch, yaw, bins=(pitch_edges, yaw_edges))
    counts = inside.astype(np.int64)
    return PoseMap(yaw_edges, pitch_edges, counts, len(yaw) - int(counts.sum()))


def identities(images: pa.Table, roll_weight: float) -> Identities:
    """Figures of each identity.

    Args:
        images: rows of the images table, the 8 of an identity one after the other.
        roll_weight: of the pose distance, as in the selection of images.

    Raises:
        DatasetError: the rows of an identity are not consecutive.
    """
    names = images["key"].combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    if len(codes) % IMAGES_PER_IDENTITY or len(names.dictionary) * IMAGES_PER_IDENTITY != len(codes):
        raise DatasetError(
            f"the images table does not have {IMAGES_PER_IDENTITY} rows for each key: verify the dataset"
        )
    grouped = codes.reshape(-1, IMAGES_PER_IDENTITY)
    if (grouped != grouped[:, :1]).any():
        raise DatasetError(
            "the images table: the rows of an identity are not consecutive: verify the dataset"
        )
    pose = np.stack([column(images, name) for name in ("yaw", "pitch", "roll")], axis=-1)
    pose = pose.reshape(-1, IMAGES_PER_IDENTITY, 3)
    points = pose_points(pose, roll_weight)
    pairs = list(combinations(range(IMAGES_PER_IDENTITY), 2))
    distances = np.stack([np.linalg.norm(points[:, i] - points[:, j], axis=-1) for i, j in pairs], axis=-1)
    scores = column(images, "quality").reshape(-1, IMAGES_PER_IDENTITY)
    higher = images["quality_higher_is_better"].to_numpy().reshape(-1, IMAGES_PER_IDENTITY)
    metric = np.asarray(images["quality_metric"].to_pylist(), dtype=np.str_).reshape(-1, IMAGES_PER_IDENTITY)
    return Identities(
        keys=np.asarray(names.dictionary.to_pylist(), dtype=np.str_),
        pose_deg=pose,
        distances_deg=distances,
        quality=scores.mean(axis=1),
        badness=np.where(higher, -scores, scores).mean(axis=1),
        metric=metric[:, 0],
    )


def random_keys(found: Identities, count: int, seed: int) -> list[str]:
    """Keys of a random sample without replacement, sorted."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(found.keys, min(count, len(found.keys)), replace=False).tolist())


def worst_keys(found: Identities, metric: str, count: int) -> list[str]:
    """Keys of the identities that `metric` scores worst, the worst first."""
    rows = np.flatnonzero(found.metric == metric)
    rows = rows[np.lexsort((found.keys[rows], -found.badness[rows]))][:count]
    worst: list[str] = found.keys[rows].tolist()
    return worst


def _round_step(rough: float) -> float:
    """The nearest of 1, 2, 2.5 and 5 times a power of ten at or above `rough`."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
