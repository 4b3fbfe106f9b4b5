"""A fingerprint does not know the size, the place or the light of a face, only how it moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from test_track_and_filter import OneVector, person

from faces.crop import Square
from faces.types import FaceLandmarks, HeadPose, Image
from pipeline.records import CandidateTrack
from pipeline.stages.fingerprint import SAMPLE, fingerprint, samples_of
from pipeline.stages.observe import UsableFace
from pipeline.stages.recognition import AlignedFace

TIMES = [0.0, 0.167, 0.333, 0.5]
rng = np.random.default_rng(7)
POINTS = rng.uniform(200, 300, (478, 3)).astype(np.float32)
POINTS[33, :2], POINTS[263, :2] = (210, 240), (290, 240)
POINTS[[13, 14], 0] = 250
PICTURE = np.kron(rng.integers(60, 190, (7, 7, 1)), np.ones((16, 16, 3))).astype(np.uint8)


def face(points: NDArray[np.float32] = POINTS, picture: Image = PICTURE, yaw: float = 0.0) -> UsableFace:
    landmarks = FaceLandmarks(points, HeadPose(yaw, -3.21, 40.0), 1.0)
    return UsableFace(landmarks, 90.0, AlignedFace(picture, OneVector(person(0))), Square(0, 0, 512), b"jpeg")


def moving(scale: float = 1.0, shift: float = 0.0) -> list[UsableFace]:
    """The face moves to the right and opens its mouth."""
    faces = []
    for step in range(4):
        points = POINTS.copy()
        points[13, 1], points[14, 1] = 270 - 3 * step, 272 + 3 * step
        points[:, 0] += 7 * step
        faces.append(face(((points * scale) + shift).astype(np.float32), yaw=10.5 * step))
    return faces


def test_a_sample_holds_time_pose_place_expression_and_picture() -> None:
    samples = samples_of(fingerprint(TIMES, moving()))
    assert samples.dtype == SAMPLE
    assert samples["time_ms"].tolist() == [0, 167, 333, 500]
    assert samples["pose"].tolist() == [
        [0, -321, 4000],
        [1050, -321, 4000],
        [2100, -321, 4000],
        [3150, -321, 4000],
    ]
    size = float(np.sqrt(((POINTS[:, :2] - POINTS[:, :2].mean(0)) ** 2).sum(1).mean()))
    assert samples["place"][:, 0] == pytest.approx(np.array([-10.5, -3.5, 3.5, 10.5]) / size * 1000, abs=2)
    assert (np.diff(samples["expression"][:, 0].astype(int)) > 0).all()
    assert np.linalg.norm(samples["picture"][0].astype(float)) == pytest.approx(127, abs=2)


def test_the_size_of_the_face_and_its_place_in_the_frame_do_not_matter() -> None:
    own = samples_of(fingerprint(TIMES, moving()))
    for scale, shift in ((0.35, 0.0), (1.5, 0.0), (1.0, -150.0), (0.6, 333.0)):
        other = samples_of(fingerprint(TIMES, moving(scale, shift)))
        for field in ("place", "expression"):
            assert np.abs(own[field].astype(int) - other[field]).max() <= 1


def test_brightness_and_contrast_do_not_matter() -> None:
    darker = np.round(PICTURE * 0.8 - 20).astype(np.uint8)
    own, other = (
        samples_of(fingerprint([0], [face(picture=image)]))["picture"] for image in (PICTURE, darker)
    )
    assert np.abs(own.astype(int) - other).max() <= 2


def test_values_beyond_their_range_are_limited() -> None:
    far = POINTS.copy()
    far[:, 0] += 1e6
    samples = samples_of(fingerprint([0, 0.2, 0.4], [face(), face(), face(far)]))
    assert samples["place"][2, 0] == 32767
    assert samples_of(fingerprint([0], [face(np.zeros((478, 3), np.float32))]))["place"].tolist() == [
        [0, 0, 0]
    ]


def test_a_time_belongs_to_each_face() -> None:
    with pytest.raises(ValueError, match="one time for each face, got 2 times and 1 faces"):
        fingerprint([0.0, 1.0], [face()])
    with pytest.raises(ValueError, match="got 0 times and 0 faces"):
        fingerprint([], [])


def test_a_fingerprint_survives_the_way_through_json() -> None:
    data = fingerprint(TIMES, moving())
    track = CandidateTrack(track=0, embedding=[1.0], candidates=[], fingerprint=data, seen_with=[3])
    assert CandidateTrack.model_validate_json(track.model_dump_json()) == track


def test_a_minute_of_video_takes_some_kilobytes() -> None:
    assert len(fingerprint([n / 6 for n in range(60)], [replace(face()) for _ in range(60)])) == 2040
