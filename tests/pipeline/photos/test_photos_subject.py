"""Whose photograph it is, and the square of a face that was cut out already."""

from __future__ import annotations

import numpy as np
import pytest

from faces.types import Detection
from pipeline.photos.aligned import central_square
from pipeline.photos.config import PhotoSource
from pipeline.photos.subject import subject_of
from pipeline.rejection import Rejection
from shards.schema import Reason


def face(x: float, y: float, size: float) -> Detection:
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return Detection(box, 0.9, np.zeros((5, 2), np.float32))


def config(**keys: object) -> PhotoSource:
    return PhotoSource.model_validate({"path": "/photographs", **keys})


def test_the_largest_face_is_the_persons_where_the_others_are_much_smaller() -> None:
    faces = [face(20, 20, 30), face(150, 60, 100), face(180, 20, 59)]
    assert subject_of(faces, 200, 200, config()) == 1
    found = subject_of([*faces, face(50, 150, 61)], 200, 200, config())
    assert isinstance(found, Rejection)
    assert found.reason is Reason.SEVERAL_FACES
    assert found.detail == "4 faces of 100, 61, 59, 30 px"
    assert subject_of([*faces, face(50, 150, 61)], 200, 200, config(max_other_face=0.7)) == 1


@pytest.mark.parametrize("keys", [{"subject": "central"}, {"aligned": True}])
def test_the_face_in_the_middle_is_the_persons_whatever_others_there_are(keys: dict[str, object]) -> None:
    assert subject_of([face(20, 100, 90), face(110, 95, 60)], 200, 200, config(**keys)) == 1


def test_a_photograph_without_a_face_is_rejected() -> None:
    found = subject_of([], 200, 200, config())
    assert isinstance(found, Rejection)
    assert found.reason is Reason.NO_FACE


def test_a_crop_that_is_no_square_gives_the_square_in_its_middle() -> None:
    square = central_square(96, 112)
    assert (square.x0, square.y0, square.side) == (0, 8, 96)
    square = central_square(200, 100)
    assert (square.x0, square.y0, square.side) == (50, 0, 100)
