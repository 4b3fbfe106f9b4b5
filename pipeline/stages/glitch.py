"""Finds poses that a head cannot have had: one frame's, far from those just before and after it.

The landmarker sometimes fits a face that is half hidden or blurred with a pose of its own. As the farthest pose of
its track, such a frame would always be chosen. A head needs more than a third of a second to turn there and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEIGHBOUR_S = 0.35
"""Frames further apart than this are no neighbours: in that time, a head can turn anywhere."""
GLITCH_DEG = 12.0
"""Least distance from both neighbours."""
GLITCH_RATIO = 3.0
"""Least multiple of the neighbours' own distance, and of the head's steps around them."""
END_GLITCH_DEG = 20.0
"""Least distance of a first or last frame from its one neighbour: 120 degrees a second at 6 frames a second."""


def glitches(points: NDArray[np.float64], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether each frame's pose is a glitch.

    Args:
        points: (N, 3) poses, as `pipeline.stages.select.pose_points` gives them, in time order.
        near: (N - 1,) whether each frame and the next are of one shot and at most `NEIGHBOUR_S` apart.
    """
    count = len(points)
    inner = np.zeros(count, dtype=bool)

    def distance(first: int, second: int) -> float:
        return float(np.linalg.norm(points[first] - points[second]))

    for row in range(1, count - 1):
        if near[row - 1] and near[row]:
            least = min(distance(row, row - 1), distance(row, row + 1))
            # The head's own speed: at the apex of a fast turn, the steps before and after it are as long.
            around = [distance(a, a + 1) for a in (row - 2, row + 1) if 0 <= a < count - 1 and near[a]]
            usual = max(distance(row - 1, row + 1), min(around, default=0.0))
            inner[row] = least >= GLITCH_DEG and least >= GLITCH_RATIO * usual
    found = inner.copy()
    for row in range(count):
        way = _inwards(row, near)
        # Of two frames alone, neither is known to be the glitch.
        if way == 0 or not _are_near(row + way, row + 2 * way, near):
            continue
        # Where the only neighbour is a glitch itself, the frame behind it counts.
        other = row + 2 * way if inner[row + way] else row + way
        found[row] = distance(row, other) >= END_GLITCH_DEG
    return found


def _inwards(row: int, near: NDArray[np.bool_]) -> int:
    """The way to the only neighbour of a frame at an end of a shot, 1 or -1; 0 for all other frames."""
    before, after = row > 0 and bool(near[row - 1]), row < len(near) and bool(near[row])
    return 0 if before == after else 1 if after else -1


def _are_near(first: int, second: int, near: NDArray[np.bool_]) -> bool:
    row = min(first, second)
    return 0 <= row < len(near) and bool(near[row])
