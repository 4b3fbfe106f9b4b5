"""What is measured on a face of a real photograph, the first reason to drop it, and the score of its crop."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from faces.landmarks import FaceLandmarker
from faces.profiles import load_detector, load_embedder
from faces.registry import load_weights
from faces.types import HeadPose, Image
from pipeline.config import Config, Faces, Selection
from pipeline.decode.frames import Frame
from pipeline.records import Analysis, Candidate, CandidateTrack
from pipeline.stages.choice import choose_images
from pipeline.stages.gate import GATES_PX
from pipeline.stages.observe import FaceObservation, FaceObserver, is_extreme
from pipeline.stages.score import CandidateScorer
from pipeline.stopwatch import Stopwatch
from settings.loading import load_workflow
from shards.schema import IMAGE_SIDE, Pose, Reason, Status, VideoOutcome

WORKFLOW = Path(__file__).parents[2] / "workflows" / "curate_embedded.yaml"


@pytest.fixture(scope="module")
def portrait() -> Image:
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:400])


@pytest.fixture(scope="module")
def networks() -> tuple[object, ...]:
    models = load_weights(["yunet", "face_landmarker", "sface"], None)
    detector = load_detector("yunet", models, min_score=0.6)
    return detector, FaceLandmarker(models["face_landmarker"].path), load_embedder("sface", models)


def observed(networks: tuple[object, ...], image: Image, **config: float) -> list[FaceObservation]:
    settings = Faces(**({"min_crop_px": 90} | config))  # type: ignore[arg-type]
    observer = FaceObserver(*networks, settings, 95)  # type: ignore[arg-type, call-arg, misc]
    return observer.observe([Frame(7, 0.28, np.ascontiguousarray(image))], Stopwatch())[0]


def reason(networks: tuple[object, ...], image: Image, **config: float) -> Reason | None:
    (face,) = observed(networks, image, **config)
    assert (face.usable is None) == (face.reason is not None)
    return face.reason


def test_a_good_face_is_measured_and_its_crop_is_encoded(
    networks: tuple[object, ...], portrait: Image
) -> None:
    (face,) = observed(networks, portrait)
    assert (face.frame, face.time_s, face.reason) == (7, 0.28, None)
    assert face.usable is not None
    assert np.linalg.norm(face.usable.face.embedding) == pytest.approx(1, abs=1e-5)
    crop = simplejpeg.decode_jpeg(face.usable.jpeg, "RGB")
    assert crop.shape == (IMAGE_SIDE, IMAGE_SIDE, 3)
    nose = face.usable.square.to_crop(face.usable.landmarks.points)[1]
    assert np.abs(nose - IMAGE_SIDE / 2).max() < 80


def test_an_empty_wall_has_no_face(networks: tuple[object, ...]) -> None:
    assert observed(networks, np.full((400, 400, 3), 128, np.uint8)) == []


def test_the_gate_is_on_the_side_of_the_stored_crop(networks: tuple[object, ...], portrait: Image) -> None:
    (face,) = observed(networks, portrait)
    assert face.usable is not None
    side = face.usable.square.side
    assert face.crop_px == side
    assert face.detection.face_px < side
    assert reason(networks, portrait, min_crop_px=side) is None
    assert reason(networks, portrait, min_crop_px=side + 1) is Reason.CROP_TOO_SMALL


def test_the_second_gate_is_on_the_detectors_box_and_off_by_default(
    networks: tuple[object, ...], portrait: Image
) -> None:
    assert Faces().min_px is None
    (face,) = observed(networks, portrait)
    assert reason(networks, portrait, min_px=face.detection.face_px) is None
    assert reason(networks, portrait, min_px=face.detection.face_px + 0.1) is Reason.FACE_TOO_SMALL


def test_a_crop_below_the_gate_is_measured_for_the_report(
    networks: tuple[object, ...], portrait: Image
) -> None:
    large = cv2.resize(portrait, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_CUBIC)
    (face,) = observed(networks, large, min_crop_px=800)
    assert face.reason is Reason.CROP_TOO_SMALL
    assert face.crop_px is not None
    assert GATES_PX[0] < face.crop_px < 800


def test_a_crowd_of_small_faces_costs_no_landmarks(networks: tuple[object, ...], portrait: Image) -> None:
    small = cv2.resize(portrait[:256, 100:356], (128, 128), interpolation=cv2.INTER_AREA)
    crowd = np.tile(small, (4, 6, 1))
    watch = Stopwatch()
    faces = FaceObserver(*networks, Faces(), 95).observe([Frame(0, 0.0, crowd)], watch)[0]  # type: ignore[arg-type, call-arg, misc]
    assert len(faces) > 12
    assert {face.reason for face in faces} == {Reason.CROP_TOO_SMALL}
    assert {face.crop_px for face in faces} == {None}
    assert watch.seconds.keys() == {"detect"}


def test_a_frame_smaller_than_all_gates_costs_no_landmarks(
    networks: tuple[object, ...], portrait: Image
) -> None:
    (face,) = observed(networks, portrait[:250], min_crop_px=448)
    assert (face.reason, face.crop_px) == (Reason.CROP_TOO_SMALL, None)


def test_a_face_at_the_edge_of_the_frame_is_cut_off(networks: tuple[object, ...], portrait: Image) -> None:
    assert reason(networks, portrait[:, 215:]) is Reason.FACE_CUT_OFF


def test_a_dark_face_is_too_dark(networks: tuple[object, ...], portrait: Image) -> None:
    assert reason(networks, (portrait * 0.4).astype(np.uint8), min_brightness=80) is Reason.TOO_DARK


def test_a_smeared_face_is_blurred(networks: tuple[object, ...], portrait: Image) -> None:
    smeared = cv2.GaussianBlur(portrait, (0, 0), 4)
    assert reason(networks, smeared, min_sharpness=25) is Reason.BLURRED


def test_a_face_turned_beyond_the_limit_is_extreme(networks: tuple[object, ...], portrait: Image) -> None:
    turned = cv2.warpAffine(portrait, cv2.getRotationMatrix2D((225, 120), 30, 1), (512, 400))
    assert reason(networks, turned, max_roll=15) is Reason.EXTREME_POSE
    assert reason(networks, turned, max_roll=60) is None


@pytest.mark.parametrize(
    ("pose", "extreme"),
    [
        ((0, 0, 0), False),
        ((-75, 50, -45), False),
        ((-76, 0, 0), True),
        ((0, -51, 0), True),
        ((0, 0, 46), True),
    ],
)
def test_each_angle_has_its_limit_on_both_sides(pose: tuple[float, float, float], extreme: bool) -> None:
    assert is_extreme(HeadPose(*pose), Faces(max_yaw=75, max_pitch=50, max_roll=45)) is extreme


class Strict:
    """An identity check to which some candidates are another person; notes which it was asked about."""

    def __init__(self, others: set[int]) -> None:
        self.others = others
        self.asked: list[int] = []

    def check(self, track: CandidateTrack, jpegs: list[bytes], rows: list[int]) -> CandidateTrack:
        assert len(jpegs) == len(track.candidates)
        self.asked += rows
        made = list(track.candidates)
        for row in rows:
            made[row] = made[row].model_copy(
                update={"identity_cosine": 0.9, "other_identity": made[row].frame in self.others}
            )
        return track.model_copy(update={"candidates": made})


@pytest.mark.slow
def test_others_take_the_place_of_images_of_another_identity(
    portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = CandidateScorer(
        load_workflow(WORKFLOW, ["source.path=/data/clips", "output=/data/mfhq"], Config),
        load_weights(["sface"], None),
    )
    image = cv2.resize(portrait[:300, 75:375], (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_CUBIC)
    jpegs = [simplejpeg.encode_jpeg(image, 95, "RGB", "444")] * 18
    (first,) = analysis_of(1).tracks
    turning = [
        first.candidates[0].model_copy(
            update={
                "frame": number,
                "pose": Pose(yaw=5.0 * (number // 2) + 0.5 * (number % 2), pitch=0, roll=0),
                "cluster": number // 2,
                "rank": number % 2,
                "identity_cosine": None,
            }
        )
        for number in range(18)
    ]
    analysis = analysis_of(0).model_copy(
        update={"tracks": [first.model_copy(update={"candidates": turning})]}
    )
    # Without one cluster and the first of another, the second of that one is needed for eight.
    strict = Strict({6, 7, 14})
    monkeypatch.setattr(scorer, "_identity", strict)
    (track,) = scorer.score(analysis, jpegs).tracks
    chosen = choose_images(track, Selection(), scorer.higher_is_better)
    assert isinstance(chosen, list)
    assert not set(chosen) & strict.others
    assert {row // 2 for row in chosen} == {0, 1, 2, 4, 5, 6, 7, 8}
    assert all(track.candidates[row].identity_cosine == 0.9 for row in chosen)
    assert len(strict.asked) == len(set(strict.asked))


def analysis_of(count: int) -> Analysis:
    candidates = [
        Candidate(
            frame=number,
            time_s=number,
            box_px=(0, 0, 1, 1),
            face_px=1,
            crop_px=(0, 0, 1),
            pose=Pose(yaw=0, pitch=0, roll=0),
            keypoints_crop_px=[],
            eyes_open=1,
            eyes_closed=False,
            sharpness=1,
            identity_cosine=1,
            cluster=0,
        )
        for number in range(count)
    ]
    tracks = [CandidateTrack(track=n, embedding=[1.0], candidates=[c]) for n, c in enumerate(candidates)]
    outcome = VideoOutcome(video_id="v", source="s", uri="u", bytes=1, status=Status.ACCEPTED)
    return Analysis(outcome=outcome, tracks=tracks, seconds={"decode": 1.0})


@pytest.mark.slow
def test_each_candidate_gets_the_score_of_its_own_image(portrait: Image) -> None:
    scorer = CandidateScorer(
        load_workflow(WORKFLOW, ["source.path=/data/clips", "output=/data/mfhq"], Config),
        load_weights(["sface"], None),
    )
    image = cv2.resize(portrait[:300, 75:375], (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 40, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    jpegs = [simplejpeg.encode_jpeg(picture, 95, "RGB", "444") for picture in (image, noisy)]

    def scores(analysis: Analysis) -> list[float | None]:
        return [c.quality for track in analysis.tracks for c in track.candidates]

    together = scorer.score(analysis_of(2), jpegs)
    clean, spoilt = scores(together)
    assert clean is not None
    assert spoilt is not None
    assert scorer.higher_is_better is False
    assert clean < spoilt
    assert clean == round(clean, 4)
    assert scores(scorer.score(analysis_of(1), jpegs[1:])) == [spoilt]
    assert together.seconds.keys() == {"decode", "score"}
    assert scores(scorer.score(analysis_of(0), [])) == []
