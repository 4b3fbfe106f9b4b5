"""The picture as a face detector sees it: reduced, on a black canvas.

Detectors are trained on pictures in which a face is a part of the scene. They miss a face that fills
the picture, as in close-ups and tight crops, unless there is a border around it. So every picture
gets a border of a quarter of its long side. Frames are reduced first because a detector's cost grows with the
area and a face worth keeping is large: only so far that the smallest one of interest is still found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from faces.resize import reduced
from faces.types import Floats, Image

BORDER = 0.25
"""Border on each side, as a part of the picture's long side."""
LEAST_SIDE = 320
"""Pixels; canvases are not made smaller than this, because boxes and keypoints become coarse."""
LEAST_FACE = 16
"""Size of a face on the canvas, in pixels, that all detectors still find."""
_STRIDE = 32
"""All networks reduce their input by 32; a canvas of whole strides is not padded a second time."""


@dataclass(frozen=True)
class Canvas:
    """A picture on a black canvas, ready for a detector."""

    rgb: NDArray[np.uint8]  # (H, W, 3), H and W multiples of 32
    scale: tuple[float, float]  # canvas pixels per pixel of the original: x, y
    offset: tuple[float, float]  # where the picture's corner lies on the canvas: x, y

    def to_original(self, points: Floats) -> Floats:
        """Map points (..., 2) from the canvas to the original picture."""
        offset, scale = np.array(self.offset, np.float32), np.array(self.scale, np.float32)
        return cast("Floats", (points - offset) / scale)


def place_on_canvas(image: Image, size: int, border: float = BORDER) -> Canvas:
    """Reduce `image` and put a black border around it.

    Args:
        image: (H, W, 3), RGB.
        size: longest side of picture and borders together, in pixels, at least 32; smaller pictures are not
            enlarged.
        border: width of each border, as a part of the picture's long side.

    Raises:
        ValueError: the array is not an RGB image, or is empty, or `size` is too small.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} of shape {image.shape}")
    if size < _STRIDE:
        raise ValueError(f"size {size} is below {_STRIDE}, the least that a detector can take")
    height, width = image.shape[:2]
    side = size // _STRIDE * _STRIDE
    scale = min(1.0, side / (max(height, width) * (1 + 2 * border)))
    reduced_w, reduced_h = max(1, int(width * scale)), max(1, int(height * scale))
    margin = int(max(reduced_w, reduced_h) * border)
    canvas_w = math.ceil((reduced_w + 2 * margin) / _STRIDE) * _STRIDE
    canvas_h = math.ceil((reduced_h + 2 * margin) / _STRIDE) * _STRIDE
    picture = image
    if (reduced_w, reduced_h) != (width, height):
        picture = reduced(image, reduced_w, reduced_h)
    rgb = np.zeros((canvas_h, canvas_w, 3), np.uint8)
    left, top = (canvas_w - reduced_w) // 2, (canvas_h - reduced_h) // 2
    rgb[top : top + reduced_h, left : left + reduced_w] = picture
    return Canvas(rgb, (reduced_w / width, reduced_h / height), (float(left), float(top)))


def canvas_side(image: Image, most: int, least_face_px: float) -> int:
    """Longest side of the canvas on which the faces of interest are large enough.

    Args:
        image: (H, W, 3).
        most: upper bound.
        least_face_px: size of the smallest face of interest, in pixels of `image`; 0 for all that can be found.
    """
    if least_face_px <= 0:
        return most
    needed = LEAST_FACE / least_face_px * max(image.shape[:2]) * (1 + 2 * BORDER)
    return int(min(most, max(LEAST_SIDE, math.ceil(needed / _STRIDE) * _STRIDE)))
