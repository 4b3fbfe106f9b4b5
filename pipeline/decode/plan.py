"""Which frames of a video are analysed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HALF_MS = 5e-4
"""Containers round the times of frames to their clock, often to milliseconds."""


def frames_between(times_s: NDArray[np.float64], start_s: float, end_s: float) -> range:
    """The frames that are first shown in [start_s, end_s), as indices into `times_s`."""
    first, stop = np.searchsorted(times_s, (start_s - HALF_MS, end_s - HALF_MS)).tolist()
    return range(first, stop)


def plan_frames(
    times_s: NDArray[np.float64], per_second: float, most: int, part: range | None = None
) -> NDArray[np.int64]:
    """Choose the frames to analyse: evenly spaced in time, at most `most`.

    Args:
        times_s: (frames,) presentation times, ascending.
        per_second: how many a second.
        most: how many of a video.
        part: the frames to choose from, at least one; all when None.

    Returns:
        Ascending indices into `times_s`.
    """
    if part is not None:
        return part.start + plan_frames(times_s[part.start : part.stop], per_second, most)
    span = float(times_s[-1] - times_s[0])
    wanted = min(int(span * per_second) + 1, most)
    if wanted >= len(times_s):
        return np.arange(len(times_s))
    ticks = times_s[0] + np.arange(wanted) * (span / max(wanted - 1, 1))
    return np.unique(np.searchsorted(times_s, ticks - 1e-6).clip(0, len(times_s) - 1))
