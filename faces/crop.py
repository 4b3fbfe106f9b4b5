"""The image of a face: a square around it, upright as the frame is, never beyond the frame's edges.

The dataset's images and the photographs that a trained encoder gets are both cut here, so inference sees what
training saw. Roll is kept because pose is signal. Nothing is padded because padding is invented
data: near the frame's border the square is moved inwards, and in a frame smaller than the square it shrinks to
the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from faces.types import Floats, Image

CROP_SIDE = 512
"""Side of the image in pixels: the dataset's contract (`shards.schema.IMAGE_SIDE`)."""
CROP_SCALE = 1.6
"""Side of the square as a multiple of the landmarks' longer side, unless a dataset is configured otherwise."""


@dataclass(frozen=True)
class Square:
    """A square of the source frame, in pixels."""

    x0: int
    y0: int
    side: int

    def to_crop(self, points: Floats) -> Floats:
        """Source points (N, 2) in pixels of the crop, pixel centres at whole numbers."""
        scale = CROP_SIDE / self.side
        shifted: Floats = (points[:, :2] - (self.x0, self.y0) + 0.5) * scale - 0.5
        return shifted


def face_is_cut_off(points: Floats, width: int, height: int) -> bool:
    """Whether a landmark lies outside the frame; in profile the nose is beyond the face oval.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        width: of the frame.
        height: of the frame.
    """
    points_px = points[:, :2]
    return bool((points_px < 0).any() or (points_px > (width - 1, height - 1)).any())


def square_holds_face(points: Floats, square: Square) -> bool:
    """Whether all landmarks lie within the square; they may not, where the frame is narrower than the face.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        square: of the same frame.
    """
    points_px = points[:, :2] - np.array((square.x0, square.y0), np.float32)
    # The square's corner and side are whole numbers, so a landmark may lie a pixel outside.
    return bool((points_px >= -1).all() and (points_px <= square.side + 1).all())


def shows_whole_face(points: Floats, square: Square, width: int, height: int) -> bool:
    """Whether all landmarks lie within the frame, and within the square that is cut from it.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        square: of the same frame.
        width: of the frame.
        height: of the frame.
    """
    return not face_is_cut_off(points, width, height) and square_holds_face(points, square)


def square_for(points: Floats, width: int, height: int, scale: float = CROP_SCALE) -> Square:
    """The square to cut out for a face.

    Args:
        points: (478, 3) landmarks in pixels of the frame.
        width: of the frame.
        height: of the frame.
        scale: side of the square as a multiple of the landmarks' longer side.
    """
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    side = min(round(float((high - low).max()) * scale), width, height)
    # Landmarks end at the brow and the head goes on above it, so the square moves up. It never cuts the chin off.
    room_below = max(0.0, (side - float(high[1] - low[1])) / 2)
    centre = (low + high) / 2 - (0, min(0.06 * side, room_below))
    x0 = int(np.clip(round(float(centre[0]) - side / 2), 0, width - side))
    y0 = int(np.clip(round(float(centre[1]) - side / 2), 0, height - side))
    return Square(x0, y0, side)


def cut(image: Image, square: Square) -> Image:
    """The crop: the square's pixels of a frame, (512, 512, 3)."""
    piece = image[square.y0 : square.y0 + square.side, square.x0 : square.x0 + square.side]
    interpolation = cv2.INTER_AREA if square.side > CROP_SIDE else cv2.INTER_CUBIC
    resized: Image = cv2.resize(piece, (CROP_SIDE, CROP_SIDE), interpolation=interpolation)
    return resized
