"""The resolution gate: how large a face is in its frame, by the head crop and by the detector's box.

A stored image comes from the head crop, but its side needs landmarks, which are expensive. So a face
whose crop cannot be large enough is recognised by its detector box alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from shards.schema import IMAGES_PER_IDENTITY

GATES_PX = (256, 320, 384, 448, 512)
"""The gates that the report compares, in source pixels. Crops are measured down to the smallest of them, also
where `faces.min_crop_px` is larger, so that one build shows what another gate would keep."""

MOST_LANDMARKS_PER_FACE = 1.5
"""Upper bound of the landmarks' longer side as a multiple of the detector's face size. On real clips (46 videos,
faces of 29 to 612 px, yaw up to 60 degrees) the multiple is .70 to 1.13 with YuNet and .84 to 1.12 with SCRFD; a
head on its side, which the pipeline drops anyway, reaches 1.27."""

USUAL_LANDMARKS_PER_FACE = 1.13
"""The same multiple's largest value on those clips, heads upright."""


def least_face_px(min_crop_px: float, crop_scale: float) -> float:
    """Size of the smallest face, by the detector, whose head crop passes some gate of interest.

    Args:
        min_crop_px: `faces.min_crop_px`.
        crop_scale: `faces.crop_scale`.
    """
    return min(min_crop_px, *GATES_PX) / (USUAL_LANDMARKS_PER_FACE * crop_scale)


def largest_crop(face_px: float, width: int, height: int, crop_scale: float) -> float:
    """An upper bound of the side of a face's head crop, known without landmarks.

    Args:
        face_px: face size by the detector.
        width: of the frame.
        height: of the frame.
        crop_scale: `faces.crop_scale`.
    """
    return min(MOST_LANDMARKS_PER_FACE * crop_scale * face_px, width, height)


def eighth_largest(sizes: Iterable[float | None]) -> float | None:
    """The largest gate that eight frames of a track pass, rounded down to a tenth of a pixel.

    Args:
        sizes: of one frame each, None where it is not known.

    Returns:
        None when fewer than eight are known.
    """
    known = (size for size in sizes if size is not None)
    largest = heapq.nlargest(IMAGES_PER_IDENTITY, known)
    return math.floor(10 * largest[-1]) / 10 if len(largest) == IMAGES_PER_IDENTITY else None
