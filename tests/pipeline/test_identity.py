"""Chosen images prove to show the person of their track, and others take the place of those that do not."""

from __future__ import annotations

from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
import simplejpeg

from faces.crop import CROP_SIDE, Square, cut
from faces.embed import SFace
from faces.registry import load_weights
from faces.types import Detection
from faces.yunet import YuNet
from pipeline.records import Candidate, CandidateTrack
from pipeline.stages.identity import IdentityCheck
from shards.schema import Pose


@pytest.fixture(scope="module")
def embedder() -> SFace:
    return SFace(load_weights(["sface"], None)["sface"].path)


@pytest.fixture(scope="module")
def group() -> tuple[np.ndarray, list[Detection]]:
    """A photograph of six people, and their faces."""
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return image, YuNet(load_weights(["yunet"], None)["yunet"].path).detect(image)


def stored(image: np.ndarray, face: Detection, number: int) -> tuple[Candidate, bytes]:
    """A face as a candidate, and its stored image."""
    side = round(1.6 * face.face_px)
    centre = (face.box[:2] + face.box[2:]) / 2
    square = Square(*(max(0, round(float(value - side / 2))) for value in centre), side)
    x, y = square.to_crop(face.keypoints).T
    candidate = Candidate(
        frame=number,
        time_s=number,
        box_px=tuple(float(value) for value in face.box),
        face_px=face.face_px,
        crop_px=(square.x0, square.y0, square.side),
        pose=Pose(yaw=0, pitch=0, roll=0),
        keypoints_crop_px=list(zip(x.tolist(), y.tolist(), strict=True)),
        eyes_open=1,
        sharpness=1,
        eyes_closed=False,
        cluster=number,
    )
    assert cut(image, square).shape == (CROP_SIDE, CROP_SIDE, 3)
    return candidate, simplejpeg.encode_jpeg(cut(image, square), 95, "RGB", "444")


def track_of(
    embedder: SFace, group: tuple[np.ndarray, list[Detection]]
) -> tuple[CandidateTrack, list[bytes]]:
    """The six people as candidates of one track, whose person is the first of them."""
    from faces.align import align_112

    image, faces = group
    made = [stored(image, face, number) for number, face in enumerate(faces)]
    own = embedder.embed([align_112(image, faces[0].keypoints)])[0]
    track = CandidateTrack(track=0, embedding=own.tolist(), candidates=[candidate for candidate, _ in made])
    return track, [jpeg for _, jpeg in made]


def test_an_image_of_another_person_is_marked_and_one_of_the_tracks_has_its_cosine(
    embedder: SFace, group: tuple[np.ndarray, list[Detection]]
) -> None:
    track, jpegs = track_of(embedder, group)
    checked = IdentityCheck(embedder, 0.4).check(track, jpegs, [0, 1, 3]).candidates
    assert [c.other_identity for c in checked] == [False, True, False, True, False, False]
    assert [c.identity_cosine is None for c in checked] == [False, False, True, False, True, True]
    own, other = checked[0].identity_cosine, checked[1].identity_cosine
    assert own is not None
    assert other is not None
    assert own > 0.95
    assert other < 0.4


def test_a_profile_of_a_steady_track_is_not_judged_by_its_cosine(
    embedder: SFace, group: tuple[np.ndarray, list[Detection]]
) -> None:
    track, jpegs = track_of(embedder, group)
    turned = Pose(yaw=60, pitch=0, roll=0)
    steady, alone = (
        track.candidates[1].model_copy(update={"pose": turned, "continuous": joined})
        for joined in (True, False)
    )
    for candidate, marked in ((steady, False), (alone, True)):
        candidates = [track.candidates[0], candidate, *track.candidates[2:]]
        checked = IdentityCheck(embedder, 0.4).check(
            track.model_copy(update={"candidates": candidates}), jpegs, [1]
        )
        assert checked.candidates[1].other_identity is marked
