"""Damage that only the picture shows: block edges that were not there a frame ago.

A decoder of HEVC or VP8 goes on behind damaged bytes without an error, and makes a mosaic of them: steps in
brightness along the grid of 8 pixels that both codecs are built on. A real edge lies on that grid by chance only,
one time in eight. So a frame is damaged when many sharp steps appear in it on the grid, on many lines of it, and
few beside it. Steps that the frame before had too (letterboxes, graphics) do not count.

The limits come from damaged and intact clips; docs/decoding.md has the figures. A stream that is coded very
coarsely and without a deblocking filter looks the same, and is lost; so is the first group of pictures of one that
opens with a mosaic on the grid.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CODECS = frozenset({"hevc", "vp8"})
"""Codecs whose decoders pass over most damage; the others report it."""
GRID = 8
LEAST_SIDE = 4 * GRID
"""Pixels; a smaller picture has too few lines of the grid."""
LEAST_STEP = 16
"""Grey levels of 255 between two pixels."""
LEAST_SEGMENTS = 8
"""New segments on the grid, less twice those on any shifted grid."""
LEAST_LINES = 6
"""Rows and columns of the grid that hold them: an inserted picture has four."""

Luma = NDArray[np.uint8]
"""(height, width) brightness."""


class BlockingCheck:
    """Compares each frame with the one before it, in the order in which they are shown."""

    def __init__(self) -> None:
        self._before: Luma | None = None

    def is_damaged(self, frame: Any) -> bool:
        """Whether new block edges have appeared in a frame.

        Args:
            frame: of PyAV, in a planar format.
        """
        luma, before = luma_of(frame), self._before
        self._before = luma
        if min(luma.shape) < LEAST_SIDE:
            return False
        if before is not None and before.shape != luma.shape:
            before = None
        on_grid, lines = _new_segments(luma, before, 0)
        if on_grid < LEAST_SEGMENTS or lines < LEAST_LINES:
            return False
        beside = max(_new_segments(luma, before, shift)[0] for shift in range(1, GRID))
        return on_grid - 2 * beside >= LEAST_SEGMENTS


def luma_of(frame: Any) -> Luma:
    """The first plane of a frame, as 8 bits."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    kind = np.uint8 if bits <= 8 else np.uint16
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // np.dtype(kind).itemsize)
    luma = rows[: frame.height, : frame.width]
    return luma.astype(np.uint8) if bits <= 8 else (luma >> (bits - 8)).astype(np.uint8)


def _new_segments(luma: Luma, before: Luma | None, shift: int) -> tuple[int, int]:
    """Number of segments that the frame before does not have, and of the lines that they lie on."""
    found = [_segments(luma, shift), _segments(luma.T, shift)]
    if before is not None and sum(int(one.sum()) for one in found) >= LEAST_SEGMENTS:
        found = [found[0] & ~_segments(before, shift), found[1] & ~_segments(before.T, shift)]
    return sum(int(one.sum()) for one in found), sum(int(one.any(axis=0).sum()) for one in found)


def _segments(luma: Luma, shift: int) -> NDArray[np.bool_]:
    """Where a step between two columns is sharp and alike along 8 pixels.

    Args:
        luma: (height, width).
        shift: of the columns from the grid, in pixels.

    Returns:
        (height // 8, columns) whether the step over the column's left border is one.
    """
    height, width = luma.shape
    first, end = GRID + shift, width - 1
    outer, left, right, beyond = (
        np.ascontiguousarray(luma[: height // GRID * GRID, first + offset : end + offset : GRID])
        for offset in (-2, -1, 0, 1)
    )
    texture = cv2.max(cv2.absdiff(left, outer), cv2.absdiff(right, beyond))
    # OpenCV's arithmetic on bytes stops at 0 and 255.
    least = cv2.max(cv2.add(texture, texture), LEAST_STEP - 1)
    along = (height // GRID, GRID, left.shape[1])
    rising = (cv2.subtract(right, left) > least).reshape(along).all(axis=1)
    falling = (cv2.subtract(left, right) > least).reshape(along).all(axis=1)
    found: NDArray[np.bool_] = rising | falling
    return found
