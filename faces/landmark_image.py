"""Landmarks as an image: what a ControlNet is conditioned on.

The contours of the face, the eyes, the brows, the nose and the lips as coloured lines on black. Left and right
have the same colours, so the image of mirrored landmarks is the mirrored image.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.pose import FACE_OVAL
from faces.types import Floats, Image

_WHITE, _GREEN, _BLUE, _CYAN, _YELLOW, _RED = (
    (255, 255, 255),
    (0, 255, 0),
    (64, 64, 255),
    (0, 255, 255),
    (255, 255, 0),
    (255, 0, 0),
)
# fmt: off
_LINES: tuple[tuple[tuple[int, int, int], tuple[int, ...]], ...] = (
    (_WHITE, (*FACE_OVAL.tolist(), int(FACE_OVAL[0]))),
    (_GREEN, (276, 283, 282, 295, 285, 336, 296, 334, 293, 300, 276)),
    (_GREEN, (46, 53, 52, 65, 55, 107, 66, 105, 63, 70, 46)),
    (_BLUE, (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263)),
    (_BLUE, (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33)),
    (_CYAN, (474, 475, 476, 477, 474)),
    (_CYAN, (469, 470, 471, 472, 469)),
    (_YELLOW, (168, 6, 197, 195, 5, 4, 1, 19, 94, 2)),
    (_YELLOW, (98, 97, 2, 326, 327, 294, 278, 344, 440, 275, 4, 45, 220, 115, 48, 64, 98)),
    (_RED, (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61)),
    (_RED, (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78)),
)
# fmt: on
"""Colour and landmarks of each line; the numbers are those of MediaPipe's face mesh."""
_SHIFT = 4
"""OpenCV takes points in sixteenths of a pixel."""
_LINES_A_SIDE = 256
"""Lines are a 256th of the image wide, and a pixel at least."""


def landmark_image(landmarks: Floats, source_side: float, side: int) -> Image:
    """The image of a face's landmarks.

    Args:
        landmarks: (478, 2) x and y in pixels of a square image; 0 is the centre of the first pixel.
        source_side: of that image.
        side: of the image to make.

    Returns:
        (side, side, 3) uint8, RGB.
    """
    image = np.zeros((side, side, 3), np.uint8)
    points = ((np.asarray(landmarks, np.float64) + 0.5) * (side / source_side) - 0.5) * 2**_SHIFT
    # Far outside the image, OpenCV's fixed point numbers would wrap.
    points = np.clip(np.rint(points), -(2**20), 2**20).astype(np.int32)
    width = max(1, round(side / _LINES_A_SIDE))
    for colour, numbers in _LINES:
        line = points[list(numbers)][:, None]
        cv2.polylines(
            image, [line], isClosed=False, color=colour, thickness=width, lineType=cv2.LINE_AA, shift=_SHIFT
        )
    return image
