"""Faces are embedded where a decision depends on it, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from test_track_and_filter import LEFT, RIGHT, OneVector, person, picture, seen

from faces.types import Floats
from pipeline.config import Tracking
from pipeline.stages.observe import FaceObservation
from pipeline.stages.recognition import AlignedFace
from pipeline.stages.track import Tracker


def unembedded(box: tuple[float, ...], who: Floats, time_s: float, frame: int) -> FaceObservation:
    found = seen(box, who, time_s, frame=frame)
    assert found.usable is not None
    object.__setattr__(found.usable, "face", AlignedFace(picture(who), OneVector(who)))
    return found


def embedded(observations: list[FaceObservation]) -> int:
    return sum(o.usable.face.is_embedded for o in observations if o.usable is not None)


def test_an_embedding_is_computed_once_when_it_is_asked_for() -> None:
    embedder = OneVector(person(2))
    face = AlignedFace(picture(person(2)), embedder)
    assert not face.is_embedded
    np.testing.assert_array_equal(face.embedding, person(2))
    np.testing.assert_array_equal(face.embedding, person(2))
    assert (face.is_embedded, embedder.calls) == (True, 1)


def test_similarity_is_that_of_the_pictures() -> None:
    ann, bob = (AlignedFace(picture(person(n)), OneVector(person(n))) for n in (0, 1))
    assert ann.similarity(ann) == pytest.approx(1)
    assert abs(ann.similarity(bob)) < 0.5
    grey = AlignedFace(np.full((112, 112, 3), 90, np.uint8), OneVector(person(0)))
    assert grey.similarity(ann) == 0


def test_a_face_that_stays_is_embedded_every_two_seconds() -> None:
    tracker = Tracker(Tracking())
    seen_faces = [unembedded(LEFT, person(0), n / 6, n) for n in range(31)]
    for n, face in enumerate(seen_faces):
        tracker.add([face], n / 6, cut=False)
    (track,) = tracker.tracks
    assert [round(o.time_s, 3) for o in track.anchors] == [0, 2, 4]
    assert embedded(seen_faces) == 3


def test_another_face_at_the_same_place_is_embedded_and_starts_a_track() -> None:
    tracker = Tracker(Tracking())
    faces = [unembedded(LEFT, person(n // 4), n / 6, n) for n in range(8)]
    for n, face in enumerate(faces):
        tracker.add([face], n / 6, cut=False)
    assert [len(track.observations) for track in tracker.tracks] == [4, 4]
    assert faces[4].usable is not None
    assert faces[4].usable.face.is_embedded


def test_a_face_elsewhere_is_embedded_before_it_continues_a_track() -> None:
    tracker = Tracker(Tracking())
    faces = [unembedded(LEFT if n < 3 else RIGHT, person(0), n / 6, n) for n in range(5)]
    for n, face in enumerate(faces):
        tracker.add([face], n / 6, cut=False)
    assert [len(track.observations) for track in tracker.tracks] == [5]
    assert faces[3].usable is not None
    assert faces[3].usable.face.is_embedded
