"""The face mask: which pixels of a crop the face covers.

It is the region that the reconstruction loss of the trainer looks at. The outline of the landmarks is used
rather than a segmentation network, so that the mask follows from what is already known of the image.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.landmarks import FACE_OVAL, LANDMARKS
from faces.types import Floats

_SUBPIXEL_BITS = 4


def face_mask(points_px: Floats, side: int) -> NDArray[np.uint8]:
    """The area inside the face's outline.

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
    outline = np.asarray(points_px, np.float64)[FACE_OVAL, :2]
    if not np.isfinite(outline).all():
        raise ValueError("face_mask needs finite landmarks")
    mask = np.zeros((side, side), np.uint8)
    fixed_point = np.round(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 255, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return mask


def encode_mask_png(mask: NDArray[np.uint8]) -> bytes:
    """A mask as PNG with one bit a pixel: the smallest form, and every reader expands it to 0 and 255.

    Args:
        mask: (H, W) of 0 and 255.

    Raises:
        ValueError: other values than 0 and 255, which one bit could not hold.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or not np.isin(mask, (0, 255)).all():
        raise ValueError("a face mask is a 2-D uint8 array of 0 and 255")
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]
    encoded, data = cv2.imencode(".png", mask, options)
    if not encoded:
        raise RuntimeError("OpenCV could not encode the face mask as PNG")
    return data.tobytes()
