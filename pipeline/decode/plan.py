"""Which frames of a video are analysed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plan_frames(times_s: NDArray[np.float64], per_second: float, most: int) -> NDArray[np.int64]:
    """Choose the frames to analyse: evenly spaced in time, at most `most`.

    Args:
        times_s: (frames,) presentation times, ascending.
        per_second: how many a second.
        most: how many of a video.

    Returns:
        Ascending indices into `times_s`.
    """
    span = float(times_s[-1] - times_s[0])
    wanted = min(int(span * per_second) + 1, most)
    if wanted >= len(times_s):
        return np.arange(len(times_s))
    ticks = times_s[0] + np.arange(wanted) * (span / max(wanted - 1, 1))
    return np.unique(np.searchsorted(times_s, ticks - 1e-6).clip(0, len(times_s) - 1))
