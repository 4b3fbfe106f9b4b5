"""The landmarks file: readable by NumPy, and of one spelling."""

from __future__ import annotations

import io

import numpy as np
import pytest

from shards.landmarks import HEADER, SHAPE, SIZE, decode_landmarks, encode_landmarks, validate_landmarks

POINTS = np.random.default_rng(0).uniform(-20, 530, SHAPE).astype(np.float32)


def test_numpy_reads_the_file_without_pickle_and_writes_the_same() -> None:
    data = encode_landmarks(POINTS)
    assert len(data) == SIZE
    assert np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), POINTS)
    theirs = io.BytesIO()
    np.lib.format.write_array(theirs, POINTS, version=(1, 0), allow_pickle=False)
    assert theirs.getvalue() == data


def test_what_was_written_is_read_back() -> None:
    found = decode_landmarks(encode_landmarks(POINTS.tolist()))
    assert found.dtype == np.float32
    assert np.array_equal(found, POINTS)


@pytest.mark.parametrize(
    "points", [POINTS[:7], POINTS[..., :1], np.full(SHAPE, np.nan), np.full(SHAPE, np.inf)]
)
def test_other_points_than_those_of_eight_faces_are_not_written(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        encode_landmarks(points)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER,
        encode_landmarks(POINTS)[:-1],
        encode_landmarks(POINTS) + b"\0",
        encode_landmarks(POINTS).replace(b"<f4", b">f4"),
        HEADER + b"\xff" * (SIZE - len(HEADER)),
    ],
    ids=["empty", "header", "short", "long", "big-endian", "nan"],
)
def test_another_file_is_refused(data: bytes) -> None:
    assert validate_landmarks(data) is not None
    with pytest.raises(ValueError, match="landmarks: the file"):
        decode_landmarks(data)
