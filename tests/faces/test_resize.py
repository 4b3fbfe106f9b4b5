"""Pictures are reduced by area, and detection sees faces at a size that suffices."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from faces.canvas import canvas_side
from faces.resize import reduced


@pytest.mark.parametrize("size", [(64, 64), (213, 119), (320, 180), (640, 360)])
def test_a_reduced_picture_is_nearly_that_of_one_step(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[:720, :1280]
    waves = 128 + 100 * np.sin(columns / 90) * np.cos(rows / 70)
    image = np.stack([waves, np.roll(waves, 50, axis=1), waves.T[:720, :720].mean() + 0 * waves], axis=-1)
    image = image.clip(0, 255).astype(np.uint8)
    got = reduced(image, *size)
    direct = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    assert got.shape == (size[1], size[0], 3)
    assert np.abs(got.astype(int) - direct).mean() < 1.0


def test_a_picture_of_the_size_asked_for_is_returned_as_it_is() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    assert reduced(image, 60, 40) is image


@pytest.mark.parametrize(
    ("shape", "least_face_px", "side"),
    [
        ((512, 512), 0, 640),
        ((512, 512), 120, 320),
        ((1080, 1920), 140, 352),
        ((2160, 3840), 140, 640),
        ((1080, 1920), 8, 640),
    ],
)
def test_the_canvas_is_as_small_as_the_least_face_allows(
    shape: tuple[int, int], least_face_px: float, side: int
) -> None:
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*shape, 3))
    assert canvas_side(image, 640, least_face_px) == side
