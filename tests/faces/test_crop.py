"""The stored square: within the frame, true to scale, around the whole face."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faces.crop import (
    CROP_SCALE,
    CROP_SIDE,
    Square,
    cut,
    face_is_cut_off,
    shows_whole_face,
    square_for,
    square_holds_face,
)
from faces.pose import FACE_OVAL
from faces.types import Floats
from pipeline.config import Faces
from shards.schema import IMAGE_SIDE


def test_a_crop_is_an_image_of_the_contract_and_of_the_pipelines_own_scale() -> None:
    assert CROP_SIDE == IMAGE_SIDE
    assert Faces().crop_scale == CROP_SCALE


def face(x: float, y: float, width: float, height: float) -> Floats:
    """Landmarks on an ellipse of the given box, the outline on its rim."""
    angles = np.linspace(0, 2 * np.pi, 478)
    points = np.stack(
        [x + width / 2 * (1 + 0.8 * np.cos(angles)), y + height / 2 * (1 + 0.8 * np.sin(angles))], 1
    )
    rim = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[FACE_OVAL] = np.stack([x + width / 2 * (1 + np.cos(rim)), y + height / 2 * (1 + np.sin(rim))], 1)
    return np.concatenate([points, np.zeros((478, 1))], axis=1).astype(np.float32)


@given(
    st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    st.tuples(st.floats(-500, 2500), st.floats(-500, 2500)),
    st.tuples(st.floats(4, 1500), st.floats(4, 1500)),
    st.floats(1, 4),
)
def test_the_square_never_leaves_the_frame(
    frame: tuple[int, int], corner: tuple[float, float], size: tuple[float, float], scale: float
) -> None:
    width, height = frame
    square = square_for(face(*corner, *size), width, height, scale)
    assert 1 <= square.side <= min(width, height)
    assert 0 <= square.x0 <= width - square.side
    assert 0 <= square.y0 <= height - square.side


def test_the_side_is_a_multiple_of_the_face_and_the_face_is_in_it() -> None:
    square = square_for(face(400, 300, 150, 200), 1280, 720, scale=1.6)
    assert square.side == 320
    assert square.x0 + square.side / 2 == pytest.approx(475, abs=1)
    assert square_holds_face(face(400, 300, 150, 200), square)


def test_there_is_more_room_above_the_brow_than_below_the_chin() -> None:
    square = square_for(face(400, 300, 150, 200), 1280, 720, scale=1.6)
    above, below = 300 - square.y0, square.y0 + square.side - 500
    assert above - below == pytest.approx(2 * 0.06 * 320, abs=2)


@pytest.mark.parametrize("x", [100.0, 100.3, 100.5, 100.9])
def test_the_tightest_square_still_counts_as_holding_the_face(x: float) -> None:
    points = face(x, 200 + x / 7, 150, 200.4)
    assert square_holds_face(points, square_for(points, 1280, 720, scale=1))


def test_near_the_border_the_square_moves_inwards_and_keeps_its_size() -> None:
    square = square_for(face(5, 5, 150, 200), 1280, 720, scale=1.6)
    assert (square.x0, square.y0, square.side) == (0, 0, 320)


def test_in_a_small_frame_the_square_shrinks_to_the_frame_and_still_holds_the_chin() -> None:
    points = face(30, 40, 130, 194)
    square = square_for(points, 200, 278, scale=1.6)
    assert square.side == 200
    assert square_holds_face(points, square)


def test_a_face_taller_than_the_frame_is_wide_does_not_fit_and_is_reported() -> None:
    points = face(30, 100, 250, 380)
    assert not face_is_cut_off(points, 310, 640)
    assert not square_holds_face(points, square_for(points, 310, 640, scale=1.6))


def test_a_whole_face_is_in_the_frame_and_in_the_square() -> None:
    def whole(points: Floats, width: int, height: int) -> bool:
        return shows_whole_face(points, square_for(points, width, height), width, height)

    assert whole(face(30, 40, 130, 194), 200, 278)
    assert not whole(face(-3, 40, 130, 194), 200, 278)
    assert not whole(face(30, 100, 250, 380), 310, 640)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(0, 0, False), (-1, 50, True), (50, -1, True), (541, 50, True), (50, 281, True), (539, 279, False)],
)
def test_a_face_is_cut_off_when_its_outline_leaves_the_frame(x: float, y: float, expected: bool) -> None:
    assert face_is_cut_off(face(x, y, 100, 200), 640, 480) is expected


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_the_stored_image_is_square_and_not_distorted(width: int, height: int) -> None:
    yy, xx = np.mgrid[:height, :width]
    disc = (np.hypot(xx - 200, yy - 220) <= 60).astype(np.uint8)[..., None].repeat(3, 2) * 255
    image = cut(disc, Square(100, 100, 256))
    assert image.shape == (IMAGE_SIDE, IMAGE_SIDE, 3)
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)
    assert np.ptp(rows) == pytest.approx(121 * 2, abs=2)


@pytest.mark.parametrize("side", [100, 256, 333, 512, 700, 1000])
def test_points_are_mapped_to_where_the_picture_shows_them(side: int) -> None:
    square = Square(37, 53, side)
    point = np.array([[37 + 0.31 * side, 53 + 0.64 * side]], np.float32)
    yy, xx = np.mgrid[:1100, :1100]
    spot = np.exp(-((xx - point[0, 0]) ** 2 + (yy - point[0, 1]) ** 2) / (2 * (side / 60) ** 2))
    image = cut((spot * 250).round().astype(np.uint8)[..., None].repeat(3, 2), square)[..., 0].astype(float)
    rows, columns = np.mgrid[:IMAGE_SIDE, :IMAGE_SIDE]
    seen = np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()
    np.testing.assert_allclose(square.to_crop(point)[0], seen, atol=0.05)


def test_a_square_of_the_stored_size_is_stored_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (600, 700, 3), np.uint8)
    square = Square(11, 22, IMAGE_SIDE)
    np.testing.assert_array_equal(cut(frame, square), frame[22:534, 11:523])
    np.testing.assert_allclose(square.to_crop(np.array([[11, 22]], np.float32)), [[0, 0]])
