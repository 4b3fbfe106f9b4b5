"""The stored image: a square around the face, upright as the frame is, never beyond the frame's edges.

Roll is kept because pose is signal. Nothing is padded because padding is invented data: near the frame's
border the square is moved inwards, and in a frame smaller than the square it shrinks to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from faces.pose import FACE_OVAL
from faces.types import Floats, Image
from shards.schema import IMAGE_SIDE


@dataclass(frozen=True)
class Square:
    """A square of the source frame, in pixels."""

    x0: int
    y0: int
    side: int

    def to_crop(self, points: Floats) -> Floats:
        """Source points (N, 2) in pixels of the stored image, pixel centres at whole numbers."""
        scale = IMAGE_SIDE / self.side
        shifted: Floats = (points[:, :2] - (self.x0, self.y0) + 0.5) * scale - 0.5
        return shifted


def face_is_cut_off(points: Floats, width: int, height: int) -> bool:
    """Whether a part of the face's outline lies outside the frame.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        width: of the frame.
        height: of the frame.
    """
    outline = points[FACE_OVAL, :2]
    return bool((outline < 0).any() or (outline > (width - 1, height - 1)).any())


def square_holds_face(points: Floats, square: Square) -> bool:
    """Whether the face's outline lies within the square; it may not, where the frame is narrower than the face.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        square: of the same frame.
    """
    outline = points[FACE_OVAL, :2] - np.array((square.x0, square.y0), np.float32)
    # The square's corner and side are whole numbers, which may cost the outline a pixel or so.
    return bool((outline >= -1).all() and (outline <= square.side + 1).all())


def square_for(points: Floats, width: int, height: int, scale: float) -> Square:
    """The square to store for a face.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        width: of the frame.
        height: of the frame.
        scale: side of the square as a multiple of the landmarks' longer side.
    """
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    side = min(round(float((high - low).max()) * scale), width, height)
    # Landmarks end at the brow; the head goes on above it. But never at the price of the chin.
    room_below = max(0.0, (side - float(high[1] - low[1])) / 2)
    centre = (low + high) / 2 - (0, min(0.06 * side, room_below))
    x0 = int(np.clip(round(float(centre[0]) - side / 2), 0, width - side))
    y0 = int(np.clip(round(float(centre[1]) - side / 2), 0, height - side))
    return Square(x0, y0, side)


def cut(image: Image, square: Square) -> Image:
    """The stored image of a frame, (512, 512, 3)."""
    piece = image[square.y0 : square.y0 + square.side, square.x0 : square.x0 + square.side]
    interpolation = cv2.INTER_AREA if square.side > IMAGE_SIDE else cv2.INTER_CUBIC
    resized: Image = cv2.resize(piece, (IMAGE_SIDE, IMAGE_SIDE), interpolation=interpolation)
    return resized
