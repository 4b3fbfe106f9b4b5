"""The face mask: which pixels of a crop the face covers.

The trainer's reconstruction loss uses this region. The mask follows from the landmarks, without
a segmentation network: the landmarks are the vertices of a mesh, and the mask is everything that a triangle
of the mesh covers. So a turned face keeps its nose, lips and near cheek. The outline of the landmarks does not
work: on a turned head its far side is behind nose and mouth, and it encloses a crescent of cheek.
The convex hull does not work either: in profile it adds the background before brow and chin.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.landmarks import LANDMARKS, tessellation
from faces.types import Floats

_SUBPIXEL_BITS = 8

# fmt: off
_OPENINGS = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
    ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
)
"""Upper and lower edge of each eye and of the mouth, which MediaPipe's triangulation leaves open."""
# fmt: on


@cache
def face_triangles() -> NDArray[np.intp]:
    """The surface of the face, eyes and mouth included: (N, 3) landmark indices.

    The first call imports mediapipe, which holds the table; importing this module does not.

    Source: MediaPipe's face tessellation; `_OPENINGS` closes its three holes.
    """
    triangles = [tessellation()]
    for upper, lower in _OPENINGS:
        triangles.append(np.stack([upper[:-1], upper[1:], lower[1:]], axis=1))
        triangles.append(np.stack([upper[:-1], lower[1:], lower[:-1]], axis=1))
    surface: NDArray[np.intp] = np.concatenate(triangles).astype(np.intp)
    # Where the two edges of an opening meet, a triangle has the same corner twice.
    a, b, c = surface.T
    surface = surface[(a != b) & (b != c) & (c != a)]
    surface.flags.writeable = False
    return surface


def face_mask(points_px: Floats, side: int) -> NDArray[np.uint8]:
    """The area that the face covers, eyes and mouth included, at any head pose.

    Hands, hair and glasses in front of the face are not cut out.

    Args:
        points_px: (478, 2) or (478, 3) landmarks in pixels of the crop; they may lie outside of it.
        side: side of the square crop, in pixels.

    Returns:
        (side, side): 255 on the face, 0 elsewhere.

    Raises:
        ValueError: not the 478 landmarks, or one of them is not finite.
    """
    if points_px.ndim != 2 or points_px.shape[0] != LANDMARKS or points_px.shape[1] not in (2, 3):
        raise ValueError(f"face_mask needs ({LANDMARKS}, 2 or 3) landmarks, not {points_px.shape}")
    vertices = np.asarray(points_px, np.float64)[:, :2]
    if not np.isfinite(vertices).all():
        raise ValueError("face_mask needs finite landmarks")
    mask = np.zeros((side, side), np.uint8)
    fixed_point = np.round(vertices * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    # One by one: a single call fills by the even-odd rule and leaves out pixels that two triangles cover. OpenCV
    # also fills the pixels of a triangle's edge, so no gap stays between neighbours.
    for triangle in fixed_point[face_triangles()]:
        cv2.fillConvexPoly(mask, triangle, 255, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return mask


def encode_mask_png(mask: NDArray[np.uint8]) -> bytes:
    """A mask as PNG with one bit a pixel: a small form, and every reader expands it to 0 and 255.

    Args:
        mask: (H, W) of 0 and 255.

    Raises:
        ValueError: other values than 0 and 255, which one bit could not hold.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or not ((mask == 0) | (mask == 255)).all():
        raise ValueError("a face mask is a 2-D uint8 array of 0 and 255")
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 6]
    encoded, data = cv2.imencode(".png", mask, options)
    if not encoded:
        raise RuntimeError("OpenCV could not encode the face mask as PNG")
    return data.tobytes()
