"""Warps faces to the positions that a network was trained on.

The five keypoints are those of `Detection`: eye, eye, nose, mouth corner, mouth corner, the image's left one
first. The best similarity (rotation, one scale, shift) is the closed-form least-squares one, so the same
keypoints give the same pixels everywhere; a robust estimator would draw random subsets of five points.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.types import Floats, Image

Matrix = NDArray[np.float64]

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
"""Keypoints of ArcFace's and SFace's 112 x 112 training faces. Source: insightface, `utils/face_align.py`."""

LANDMARKS = (468, 473, 1, 61, 291)
"""Those of the 478 landmarks that are the five keypoints: pupils, tip of the nose, corners of the mouth."""

FFHQ_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    np.float32,
)
"""Mean keypoints of FFHQ at 512 x 512, on which TOPIQ's face model was trained. Source: facexlib,
`FaceRestoreHelper` with `face_size=512` and `crop_ratio=(1, 1)`, as pyiqa's CFANet builds it."""

_GREY_RGB = (132, 133, 135)
"""What facexlib fills in outside the picture (its image is BGR)."""


def similarity(source: Floats, target: Floats) -> Matrix:
    """Least-squares similarity that maps `source` points to `target` points; never a reflection.

    Args:
        source: (N, 2), N >= 2.
        target: (N, 2).

    Returns:
        (2, 3) affine matrix.

    Raises:
        ValueError: shapes differ, a coordinate is not finite, or all source points coincide.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
        1991; in the plane its rotation has the closed form used here.
    """
    source64, target64 = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source64.shape != target64.shape or source64.ndim != 2 or source64.shape[1] != 2:
        raise ValueError(f"points must be two arrays (N, 2), got {source64.shape} and {target64.shape}")
    if not np.isfinite(source64).all():
        raise ValueError("the keypoints are not all finite")
    centre_source, centre_target = source64.mean(0), target64.mean(0)
    moved_source, moved_target = source64 - centre_source, target64 - centre_target
    spread = float((moved_source**2).sum())
    if spread < 1e-12:
        raise ValueError("all keypoints coincide: no similarity maps them to a face")
    # As complex numbers, z -> a z + b with a = <target, source> / |source|^2 is the least-squares solution.
    cosine = float((moved_source * moved_target).sum()) / spread
    sine = float((moved_source[:, 0] * moved_target[:, 1] - moved_source[:, 1] * moved_target[:, 0]).sum())
    sine /= spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.concatenate([turn, (centre_target - turn @ centre_source)[:, None]], axis=1)


def _warp(image: Image, matrix: Matrix, side: int, fill: tuple[int, int, int]) -> Image:
    """Warp to a square; a large reduction is done by area first, since the warp samples only four pixels."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    halvings = 0
    while scale * 2 ** (halvings + 1) <= 1.0 and min(image.shape[:2]) >> (halvings + 1) >= 8:
        halvings += 1
    if halvings:
        factor = 2**halvings
        height, width = (s // factor * factor for s in image.shape[:2])
        size = (width // factor, height // factor)
        image = cast("Image", cv2.resize(image[:height, :width], size, interpolation=cv2.INTER_AREA))
        # Pixel centres: x in the reduced picture is (X + 0.5) / factor - 0.5.
        enlarge = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
        matrix = matrix @ enlarge
    warped = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    return cast("Image", warped)


def align_112(image: Image, keypoints: Floats) -> Image:
    """The face as ArcFace-like embedders expect it.

    Args:
        image: (H, W, 3), RGB.
        keypoints: (5, 2) in pixels of `image`.

    Returns:
        (112, 112, 3), RGB; black outside the picture.

    Raises:
        ValueError: unusable keypoints.
    """
    return _warp(image, similarity(keypoints, ARCFACE_112), 112, (0, 0, 0))


def align_512(image: Image, keypoints: Floats) -> Image:
    """The face as TOPIQ's face model expects it.

    Args:
        image: (H, W, 3), RGB.
        keypoints: (5, 2) in pixels of `image`.

    Returns:
        (512, 512, 3), RGB; grey outside the picture.

    Raises:
        ValueError: unusable keypoints.
    """
    return _warp(image, similarity(keypoints, FFHQ_512), 512, _GREY_RGB)
