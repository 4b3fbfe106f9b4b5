"""A track's fingerprint as functions of time on one clock, ready to be compared at every shift.

Two files of one footage are analysed at different moments, up to a twelfth of a second apart. So the measurements
are interpolated to a common clock. Without its moving mean, a measurement tells how the face moves, whatever the
person, the light and the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.fingerprint import samples_of

HZ = 12
"""Ticks of the clock a second: twice the frames that are analysed."""
LONGEST_GAP_S = 0.45
"""Measurements further apart are not interpolated. They stand for themselves, as in videos of some minutes."""
WINDOW_S = 5.0
"""Length of the moving mean."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Family:
    """Measurements of one kind, which are compared together.

    Attributes:
        field: of `pipeline.stages.fingerprint.SAMPLE`.
        width: number of values.
    """

    field: str
    width: int


FAMILIES = (Family("pose", 3), Family("place", 3), Family("expression", 3), Family("picture", 15))
CHANNELS = sum(family.width for family in FAMILIES)
_STARTS = np.cumsum([0, *(family.width for family in FAMILIES[:-1])])


@dataclass(frozen=True)
class Motion:
    """A track on the clock.

    Attributes:
        start: tick of the first row.
        values: (T, CHANNELS) by family, as measured; zeros where nothing is known.
        known: (T,) 1 where there are values, else 0.
        represents: (T,) seconds for which a tick stands; 0 where nothing is known.
    """

    start: int
    values: Floats
    known: Floats
    represents: Floats

    @property
    def seconds(self) -> float:
        """The time that is known."""
        return float(self.represents.sum())


def ticks_of(data: bytes) -> int:
    """Number of ticks of a fingerprint's motion.

    Raises:
        ValueError: it is not a fingerprint.
    """
    times = samples_of(data)["time_ms"]
    if len(times) < 2:
        return 0
    start, stop = _extent(times[[0, -1]].astype(np.float64) / 1000 * HZ)
    return stop - start


def motion_of(data: bytes) -> Motion:
    """The motion in a fingerprint.

    Args:
        data: from `pipeline.stages.fingerprint.fingerprint`.

    Raises:
        ValueError: it is not a fingerprint.
    """
    samples = samples_of(data)
    times = samples["time_ms"].astype(np.float64) / 1000 * HZ
    measured = np.concatenate([samples[family.field] for family in FAMILIES], axis=1).astype(np.float32)
    if len(samples) < 2:
        return Motion(0, np.zeros((0, CHANNELS), np.float32), *np.zeros((2, 0), np.float32))
    start, stop = _extent(times)
    ticks = np.arange(start, stop)
    values = np.zeros((len(ticks), CHANNELS), np.float32)
    represents = np.zeros(len(ticks), np.float32)
    _place_alone(times, measured, start, values, represents)
    _interpolate(times, measured, ticks, values, represents)
    return Motion(start, values, (represents > 0).astype(np.float32), represents)


def without_moving_mean(values: NDArray[Any], known: NDArray[Any]) -> NDArray[np.float64]:
    """What is left of values when their mean over `WINDOW_S`, of the ticks that are known, is taken away.

    Args:
        values: (T, C), zeros where nothing is known.
        known: (T,) 0 or 1.

    Returns:
        (T, C), zeros where nothing is known.
    """
    half = int(WINDOW_S * HZ) // 2
    ticks = np.arange(len(known))
    low, high = np.maximum(ticks - half, 0), np.minimum(ticks + half + 1, len(known))
    columns = np.column_stack([values, known]).astype(np.float64)
    sums = np.concatenate([np.zeros((1, columns.shape[1])), columns.cumsum(axis=0)])
    near = sums[high] - sums[low]
    mean = near[:, :-1] / np.maximum(near[:, -1:], 1)
    left: NDArray[np.float64] = (values - mean) * known[:, None]
    return left


def _extent(times: NDArray[np.float64]) -> tuple[int, int]:
    return int(np.floor(times[0])), int(np.ceil(times[-1])) + 1


def _place_alone(
    times: NDArray[np.float64], measured: Floats, start: int, values: Floats, represents: Floats
) -> None:
    """Put a measurement without near neighbours at the nearest tick; it stands for half of the time to them."""
    place = np.round(times).astype(np.int64) - start
    gaps = np.diff(times) / HZ
    before, after = np.concatenate([gaps[:1], gaps]), np.concatenate([gaps, gaps[-1:]])
    alone = np.minimum(before, after) > LONGEST_GAP_S
    values[place[alone]] = measured[alone]
    represents[place[alone]] = np.minimum((before + after)[alone], WINDOW_S) / 2


def _interpolate(
    times: NDArray[np.float64],
    measured: Floats,
    ticks: NDArray[np.int64],
    values: Floats,
    represents: Floats,
) -> None:
    """Fill the ticks between two measurements that are near each other."""
    after = np.searchsorted(times, ticks, side="right").clip(1, len(times) - 1)
    low, high = times[after - 1], times[after]
    rows = (ticks >= times[0]) & (ticks <= times[-1]) & (high - low <= LONGEST_GAP_S * HZ) & (high > low)
    part = ((ticks - low)[rows] / (high - low)[rows]).astype(np.float32)[:, None]
    values[rows] = measured[after[rows] - 1] * (1 - part) + measured[after[rows]] * part
    represents[rows] = 1 / HZ


def by_family(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """The sums of the channels of each family.

    Args:
        values: with CHANNELS along `axis`.
        axis: of the channels; in the result it has one place a family.
    """
    summed: NDArray[Any] = np.add.reduceat(values, _STARTS, axis=axis)
    return summed
