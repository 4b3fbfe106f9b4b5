"""Reducing pictures quickly."""

from __future__ import annotations

import cv2
import numpy as np

from faces.types import Image


def reduced(image: Image, width: int, height: int) -> Image:
    """A picture reduced to a size.

    Means over areas have a fast kernel in OpenCV for halving, and for no other ratio. So the picture is halved as
    often as it can be and then brought to its size: a seventh of the time for 1080p at 213 px. Where the ratio
    left is no whole number, the result is a little smoother than by one step. For networks and histograms, not for
    stored images.

    Args:
        image: (H, W, 3), not smaller than the result.
        width: of the result.
        height: of the result.
    """
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
