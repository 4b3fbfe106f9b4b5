"""Landmark images: the contours lie where the landmarks are, at any size, and mirror with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faces.landmark_image import _LINES, landmark_image
from faces.pose import FACE_OVAL

DRAWN = sorted({number for _, line in _LINES for number in line})


def face(seed: int = 0) -> np.ndarray:
    """Landmarks of no face: points of a 512 px image."""
    return np.random.default_rng(seed).uniform(40, 470, (478, 2))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([32, 64, 224, 512]))
def test_every_contour_point_is_on_a_line_and_the_rest_is_black(seed: int, side: int) -> None:
    points = face(seed)
    image = landmark_image(points, 512, side)
    assert image.shape == (side, side, 3)
    places = np.rint((points[DRAWN] + 0.5) * side / 512 - 0.5).astype(int)
    near = [image[y - 1 : y + 2, x - 1 : x + 2].max() for x, y in places]
    assert min(near) > 60
    assert not landmark_image(points * 0 - 1000, 512, side).any()


def test_a_mirrored_face_has_the_mirrored_image() -> None:
    """Left and right have the same colours; rounding moves lines a little."""
    points = face()
    mirrored = points * [-1, 1] + [511, 0]
    found = landmark_image(mirrored, 512, 512).astype(int)
    expected = landmark_image(points, 512, 512)[:, ::-1].astype(int)
    assert np.abs(found - expected).mean() < 1


def test_the_size_of_the_image_scales_the_lines() -> None:
    points = face()
    small, large = landmark_image(points, 512, 128), landmark_image(points, 512, 512)
    reduced = large.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), reduced.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("colour_of", [(255, 255, 255)])
def test_the_oval_is_closed(colour_of: tuple[int, int, int]) -> None:
    (line,) = [numbers for colour, numbers in _LINES if colour == colour_of]
    assert line == (*FACE_OVAL.tolist(), int(FACE_OVAL[0]))
