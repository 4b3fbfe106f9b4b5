"""Histograms over the images, and figures of each identity.

A dataset has a million images; the page gets counts per bin, never values per image. The bins depend on the
smallest and the largest value, so values are read twice: first for these (`Extent`), then to be counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.report.quantiles import Quantiles, Values
from pipeline.stages.select import pose_points
from shards.metadata import DatasetError
from shards.schema import IMAGES_PER_IDENTITY

BINS = 40
"""Bins that a histogram aims at; steps are round numbers, so it has 20 to 50."""
WIDEST_MAP_DEG = 90.0
POSE_STEP_DEG = 5.0


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, with the quantiles of the values.

    Attributes:
        edges: (B + 1,) round numbers.
        counts: (B,), exact.
        quantiles: 0, 5, 50, 95 and 100 per cent; of more than 65,536 values, the middle three are accurate to
            0.012%.
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


class Extent:
    """The smallest and the largest of values that come in parts."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Values) -> None:
        """Take (N,) finite values."""
        self.low = min(self.low, float(values.min(initial=math.inf)))
        self.high = max(self.high, float(values.max(initial=-math.inf)))

    @property
    def empty(self) -> bool:
        """Whether no value has come."""
        return self.low > self.high


class HistogramCounter:
    """Counts values that come in parts, in bins of round width."""

    def __init__(self, extent: Extent, step: float | None = None) -> None:
        """Lay out the bins.

        Args:
            extent: of all values, not empty.
            step: width of a bin; chosen from the extent when not given.
        """
        width = step or _round_step((extent.high - extent.low) / BINS)
        first = math.floor(extent.low / width)
        last = max(math.floor(extent.high / width) + 1, first + 1)
        self._edges = np.round(np.arange(first, last + 1) * width, 10)
        self._counts = np.zeros(last - first, dtype=np.int64)
        self._quantiles = Quantiles()

    def add(self, values: Values) -> None:
        """Count (N,) values within the extent."""
        bins = len(self._counts)
        places = np.clip(np.searchsorted(self._edges, values, side="right") - 1, 0, bins - 1)
        self._counts += np.bincount(places, minlength=bins)
        self._quantiles.add(values)

    def histogram(self) -> Histogram:
        """What was counted."""
        five = self._quantiles.at(0, 0.05, 0.5, 0.95, 1)
        return Histogram(self._edges, self._counts, (five[0], five[1], five[2], five[3], five[4]))


class PoseCounter:
    """Counts images in squares over a symmetrical map that holds all images up to 90 degrees."""

    def __init__(self, yaw: Extent, pitch: Extent) -> None:
        """Lay out the map.

        Args:
            yaw: of all images, in degrees.
            pitch: likewise.
        """
        self._yaw_edges, self._pitch_edges = _map_edges(yaw), _map_edges(pitch)
        self._counts = np.zeros((len(self._pitch_edges) - 1, len(self._yaw_edges) - 1), dtype=np.int64)
        self._images = 0

    def add(self, yaw: Values, pitch: Values) -> None:
        """Count images by their (N,) angles in degrees."""
        inside, _, _ = np.histogram2d(pitch, yaw, bins=(self._pitch_edges, self._yaw_edges))
        self._counts += inside.astype(np.int64)
        self._images += len(yaw)

    def map(self) -> PoseMap:
        """What was counted."""
        return PoseMap(
            self._yaw_edges, self._pitch_edges, self._counts, self._images - int(self._counts.sum())
        )


def _map_edges(extent: Extent) -> Values:
    widest = max(30.0, abs(extent.low), abs(extent.high)) if not extent.empty else 30.0
    half = min(math.ceil(widest / POSE_STEP_DEG) * POSE_STEP_DEG, WIDEST_MAP_DEG)
    return np.arange(-half, half + POSE_STEP_DEG, POSE_STEP_DEG)


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
        raise unequal_rows()
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


def unequal_rows() -> DatasetError:
    """The error that a key has more or fewer rows than it has images."""
    return DatasetError(
        f"the images table does not have {IMAGES_PER_IDENTITY} rows for each key: verify the dataset"
    )


def _round_step(rough: float) -> float:
    """The nearest of 1, 2, 2.5 and 5 times a power of ten at or above `rough`."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
