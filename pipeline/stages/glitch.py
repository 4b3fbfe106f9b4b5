"""Finds poses that a head cannot have had: one frame's, far from those just before and after it.

The landmarker sometimes fits a face that is half hidden or blurred with a pose of its own. As the farthest pose of
its track, such a frame would always be chosen. A head needs more than one analysed frame to turn there and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GLITCH_DEG = 12.0
"""Least distance from both neighbours."""
GLITCH_RATIO = 3.0
"""Least multiple of the neighbours' own distance, and of the head's steps around them."""
END_GLITCH_DEG = 20.0
"""Least distance of a first or last frame from its one neighbour: 120 degrees a second at 6 frames a second."""


def glitches(
    points: NDArray[np.float64], times_s: NDArray[np.float64], max_gap_s: float
) -> NDArray[np.bool_]:
    """(N,) whether each frame's pose is a glitch.

    Args:
        points: (N, 3) poses, as `pipeline.stages.select.pose_points` gives them, in time order.
        times_s: (N,) when each is shown.
        max_gap_s: frames further apart than this are no neighbours.
    """
    count = len(points)
    found = np.zeros(count, dtype=bool)
    near = np.diff(times_s) <= max_gap_s

    def distance(first: int, second: int) -> float:
        return float(np.linalg.norm(points[first] - points[second]))

    for row in range(1, count - 1):
        if near[row - 1] and near[row]:
            least = min(distance(row, row - 1), distance(row, row + 1))
            # The head's own speed: at the apex of a fast turn, the steps before and after it are as long.
            around = [distance(a, a + 1) for a in (row - 2, row + 1) if 0 <= a < count - 1 and near[a]]
            usual = max(distance(row - 1, row + 1), min(around, default=0.0))
            found[row] = least >= GLITCH_DEG and least >= GLITCH_RATIO * usual
    # A frame at an end has one neighbour; where that is a glitch itself, the one behind it counts.
    for row in range(count):
        before, after = row > 0 and near[row - 1], row < count - 1 and near[row]
        if before == after:
            continue
        way = -1 if before else 1
        other = row + way
        if found[other] and 0 <= other + way < count:
            other += way
        found[row] = not found[other] and distance(row, other) >= END_GLITCH_DEG
    return found
