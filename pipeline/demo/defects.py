"""Ways to spoil a frame, as cameras and rooms do, each strong enough that no eye would choose the result."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.types import Image
from pipeline.demo.truth import Defect

BLUR_PX = 6.0
MOTION_PX = 33
NOISE_LEVEL = 55.0
DARK_GAIN = 0.1


def spoil(image: Image, defect: Defect, rng: np.random.Generator) -> Image:
    """The image with a defect of the picture itself.

    Raises:
        ValueError: the defect is one of the scene, such as closed eyes.
    """
    if defect is Defect.BLUR:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_PX), np.uint8)
    if defect is Defect.MOTION_BLUR:
        return np.asarray(cv2.filter2D(image, -1, _streak(rng.uniform(-30.0, 30.0))), np.uint8)
    if defect is Defect.NOISE:
        noisy = image + rng.normal(0.0, NOISE_LEVEL, image.shape)
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    if defect is Defect.DARK:
        return np.round(image * DARK_GAIN).astype(np.uint8)
    raise ValueError(f"{defect} is no defect of the picture")


def _streak(angle_deg: float) -> NDArray[np.float32]:
    """Kernel of a camera that moves evenly in one direction."""
    kernel = np.zeros((MOTION_PX, MOTION_PX), np.float32)
    kernel[MOTION_PX // 2] = 1.0
    centre = (MOTION_PX - 1) / 2
    turned = cv2.warpAffine(
        kernel, cv2.getRotationMatrix2D((centre, centre), angle_deg, 1.0), (MOTION_PX, MOTION_PX)
    )
    return np.asarray(turned / turned.sum(), np.float32)
