"""Alignment puts keypoints where networks expect them, for any position, size and tilt of the face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from faces.align import ARCFACE_112, FFHQ_512, align_112, align_512, similarity
from faces.types import Floats, Image


def moved(points: Floats, scale: float, degrees: float, shift: tuple[float, float]) -> Floats:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points.astype(np.float64) @ turn.T + shift).astype(np.float32)


def dotted(keypoints: Floats, side: int, radius: int) -> Image:
    """A black picture with a white disc on every keypoint."""
    image = np.zeros((side, side, 3), np.uint8)
    for x, y in keypoints:
        cv2.circle(image, (round(float(x) * 16), round(float(y) * 16)), radius * 16, (255,) * 3, -1, shift=4)
    return image


def centres(image: Image) -> Floats:
    """Centres of the bright discs, brought into the order of the keypoints: top to bottom, left to right."""
    _, _, _, found = cv2.connectedComponentsWithStats((image[..., 0] > 100).astype(np.uint8))
    rows = sorted(found[1:].tolist(), key=lambda point: point[1])
    eyes, nose, mouth = sorted(rows[:2]), rows[2:3], sorted(rows[3:])
    return np.array(eyes + nose + mouth, np.float32)


@pytest.mark.parametrize("degrees", [-120.0, -20.0, 0.0, 35.0, 180.0])
@pytest.mark.parametrize(
    ("align", "template", "side"), [(align_112, ARCFACE_112, 112), (align_512, FFHQ_512, 512)]
)
def test_keypoints_land_on_the_template(align, template: Floats, side: int, degrees: float):
    size = 300 / side  # a face of 300 px; the template's centre stays inside the picture
    keypoints = moved(template - side / 2, size, degrees, (500.0, 480.0))
    aligned = align(dotted(keypoints, 1000, radius=12), keypoints)
    assert aligned.shape == (side, side, 3)
    assert aligned.dtype == np.uint8
    assert np.abs(centres(aligned) - template).max() < 0.01 * side


def test_a_large_face_is_averaged_down_and_not_sampled_thinly():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[::2] = 255  # finer than the 112 px image can show
    keypoints = moved(ARCFACE_112 - 56, 12.0, 0.0, (1000.0, 1000.0))
    aligned = align_112(stripes, keypoints)
    assert np.abs(aligned.astype(int) - 127).max() <= 2


def test_the_position_of_a_large_face_is_kept_to_a_fraction_of_a_pixel():
    keypoints = moved(ARCFACE_112 - 56, 14.0, 10.0, (1000.0, 990.0))
    aligned = align_112(dotted(keypoints, 2000, radius=60), keypoints)
    assert np.abs(centres(aligned) - ARCFACE_112).max() < 0.2


def test_outside_the_picture_the_512_alignment_is_grey_and_the_112_one_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    corner = align_512(white, moved(FFHQ_512, 0.2, 0.0, (-60.0, -60.0)))
    assert corner[0, 0].tolist() == [132, 133, 135]
    assert align_112(white, moved(ARCFACE_112, 1.0, 0.0, (-70.0, -70.0)))[0, 0].tolist() == [0, 0, 0]


def test_the_512_alignment_equals_facexlibs_warp_of_the_same_transformation():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (600, 700, 3), np.uint8), (0, 0), 3)
    keypoints = moved(FFHQ_512, 0.8, 12.0, (90.0, -10.0))
    matrix = cv2.estimateAffinePartial2D(keypoints, FFHQ_512, method=cv2.LMEDS)[0]
    bgr = cv2.warpAffine(
        image[..., ::-1].copy(),
        matrix,
        (512, 512),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(135, 133, 132),
    )
    difference = np.abs(align_512(image, keypoints).astype(int) - bgr[..., ::-1].astype(int))
    assert difference.max() <= 2


def test_the_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(5, 2)).astype(np.float32) * 40
    target = moved(source, 1.7, 25.0, (3.0, 4.0)) + rng.normal(size=(5, 2)).astype(np.float32)
    matrix = similarity(source, target)

    def error(candidate) -> float:
        return float(((source @ candidate[:, :2].T + candidate[:, 2] - target) ** 2).sum())

    assert matrix[0, 0] == matrix[1, 1]
    assert matrix[0, 1] == -matrix[1, 0]
    best = error(matrix)
    for _ in range(50):
        a, b, x, y = rng.normal(size=4) * 0.01
        nearby = matrix + np.array([[a, -b, x], [b, a, y]])
        assert error(nearby) > best


@pytest.mark.parametrize(
    "keypoints",
    [np.full((5, 2), 7.0, np.float32), np.full((5, 2), np.nan, np.float32), np.zeros((4, 2), np.float32)],
)
def test_unusable_keypoints_are_rejected(keypoints: Floats):
    with pytest.raises(ValueError, match="points"):
        align_112(np.zeros((100, 100, 3), np.uint8), keypoints)
