"""Faces become tracks of one person each, and of a track only the frames that fit it are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from faces.crop import Square
from faces.types import Detection, FaceLandmarks, Floats, HeadPose, Image
from pipeline.config import Faces, Tracking
from pipeline.rejection import Rejection
from pipeline.stages.observe import FaceObservation, UsableFace
from pipeline.stages.recognition import AlignedFace
from pipeline.stages.track import ShotCuts, Track, Tracker, intersection_over_union
from pipeline.stages.track_filter import (
    FilteredTrack,
    FilterResult,
    between_known,
    medoid_of,
    relatively_sharp,
    without,
)
from pipeline.stages.track_filter import filter_track as filter_with_roll
from shards.schema import Reason

LEFT, RIGHT = (100.0, 100.0, 200.0, 200.0), (400.0, 100.0, 500.0, 200.0)


def filter_track(track: Track, faces: Faces, tracking: Tracking) -> FilterResult:
    return filter_with_roll(track, faces, tracking, roll_weight=0.5)


def person(number: int, likeness: float = 1.0) -> Floats:
    """A unit vector of a person, of the given cosine to the person's own."""
    vector = np.zeros(16, np.float32)
    vector[number], vector[15] = likeness, np.sqrt(1 - likeness**2)
    return vector


class OneVector:
    """An embedder that gives one vector, and counts how often."""

    name = "fixed"

    def __init__(self, vector: Floats) -> None:
        self.vector = vector
        self.calls = 0

    def embed(self, faces: list[Image]) -> Floats:
        """The vector for each face."""
        self.calls += len(faces)
        return np.stack([self.vector] * len(faces))


def picture(embedding: Floats) -> Image:
    """An aligned face that looks like no other person's."""
    rng = np.random.default_rng(int(embedding[:15].argmax()))
    coarse = rng.integers(0, 256, (8, 8, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((14, 14, 3), np.uint8)))


def aligned(embedding: Floats) -> AlignedFace:
    """A face of a person, embedded already."""
    face = AlignedFace(picture(embedding), OneVector(embedding))
    assert face.embedding is not None
    return face


def seen(
    box: Sequence[float],
    embedding: Floats | None,
    time_s: float = 0.0,
    *,
    sharp: float = 100.0,
    frame: int = 0,
    yaw: float = 0.0,
) -> FaceObservation:
    detection = Detection(np.array(box, np.float32), 0.9, np.zeros((5, 2), np.float32))
    if embedding is None:
        return FaceObservation(frame, time_s, detection, reason=Reason.EXTREME_POSE)
    landmarks = FaceLandmarks(np.zeros((478, 3), np.float32), HeadPose(yaw, 0, 0), 1.0)
    square = Square(0, 0, 512)
    usable = UsableFace(landmarks, sharp, aligned(embedding), square, b"")
    return FaceObservation(
        frame, time_s, detection, usable, pose=landmarks.pose, square=square, sharpness=sharp
    )


Face = tuple[Sequence[float], Floats | None]


def tracks_of(
    frames: list[list[Face]], cuts: Sequence[int] = (), step_s: float = 0.2, **config: float
) -> list[Track]:
    tracker = Tracker(Tracking(**config))
    for number, faces in enumerate(frames):
        time_s = number * step_s
        tracker.add([seen(box, who, time_s, frame=number) for box, who in faces], time_s, number in cuts)
    return tracker.tracks


def lengths(tracks: list[Track]) -> list[int]:
    return [len(track.observations) for track in tracks]


def shifted(box: Sequence[float], x: float) -> list[float]:
    return [box[0] + x, box[1], box[2] + x, box[3]]


def test_a_face_that_moves_a_little_is_one_track() -> None:
    frames: list[list[Face]] = [[(shifted(LEFT, 20.0 * number), person(0))] for number in range(10)]
    assert lengths(tracks_of(frames)) == [10]


def test_two_people_side_by_side_are_two_tracks_in_whatever_order_they_are_detected() -> None:
    ann, bob = (LEFT, person(0)), (RIGHT, person(1))
    frames: list[list[Face]] = [[ann, bob] if number % 2 else [bob, ann] for number in range(10)]
    tracks = tracks_of(frames)
    assert lengths(tracks) == [10, 10]
    assert all(len({tuple(o.detection.box) for o in track.observations}) == 1 for track in tracks)


def test_two_people_who_swap_places_keep_their_tracks() -> None:
    frames: list[list[Face]] = [[(LEFT, person(0)), (RIGHT, person(1))]] * 5 + [
        [(RIGHT, person(0)), (LEFT, person(1))]
    ] * 5
    tracks = tracks_of(frames)
    assert lengths(tracks) == [10, 10]
    for track in tracks:
        embeddings = np.stack([o.usable.face.embedding for o in track.observations if o.usable])
        assert (embeddings @ embeddings.T).min() == pytest.approx(1)


def test_a_cut_ends_a_track_unless_the_face_behind_it_is_the_same_beyond_doubt() -> None:
    def across_a_cut(after: Floats | None) -> list[int]:
        frames: list[list[Face]] = [[(LEFT, person(0))]] * 4 + [[(LEFT, after)]] * 6
        return lengths(tracks_of(frames, cuts=[4], min_cosine=0.3, rejoin_cosine=0.6))

    assert across_a_cut(person(0, 0.5)) == [4, 6]
    assert across_a_cut(None) == [4, 6]
    assert across_a_cut(person(0, 0.8)) == [10]


def test_a_flash_does_not_tear_a_track() -> None:
    frames: list[list[Face]] = [[(LEFT, person(0)), (RIGHT, person(1))]] * 10
    frames[5] = []
    assert lengths(tracks_of(frames, cuts=[5, 6])) == [9, 9]


def test_another_person_in_the_same_place_starts_a_track_without_any_cut() -> None:
    frames: list[list[Face]] = [[(LEFT, person(0))]] * 5 + [[(LEFT, person(1))]] * 5
    assert lengths(tracks_of(frames)) == [5, 5]


def test_a_face_unseen_for_longer_than_the_gap_starts_anew() -> None:
    here: list[Face] = [(LEFT, person(0))]
    assert lengths(tracks_of([here, [], [], here], step_s=0.3, max_gap_s=1)) == [2]
    assert lengths(tracks_of([here, [], [], here], step_s=0.4, max_gap_s=1)) == [1, 1]


def test_frames_further_apart_than_the_gap_do_not_tear_a_track_of_a_long_video() -> None:
    frames: list[list[Face]] = [[(LEFT, person(0))]] * 10
    assert lengths(tracks_of(frames, step_s=1.5, max_gap_s=1)) == [10]
    frames[4] = []
    assert lengths(tracks_of(frames, step_s=1.5, max_gap_s=1)) == [4, 5]


def test_a_face_like_the_tracks_continues_it_from_elsewhere_and_another_does_not() -> None:
    def jump(likeness: float) -> list[list[Face]]:
        return [[(LEFT, person(0))]] * 3 + [[(RIGHT, person(0, likeness))]] * 3

    assert lengths(tracks_of(jump(0.8), rejoin_cosine=0.6)) == [6]
    assert lengths(tracks_of(jump(0.5), rejoin_cosine=0.6)) == [3, 3]


def test_a_face_that_was_not_embedded_stays_where_it_overlaps() -> None:
    frames: list[list[Face]] = [[(LEFT, person(0))], [(LEFT, None)], [(LEFT, person(0))], [(RIGHT, None)]]
    assert lengths(tracks_of(frames)) == [3, 1]


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((3, 3, 3, 3), (3, 3, 3, 3), 0.0),
    ],
)
def test_overlap_of_boxes(first: tuple[int, ...], second: tuple[int, ...], overlap: float) -> None:
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    assert intersection_over_union(a, b) == pytest.approx(overlap)


def test_a_shot_cut_is_seen_where_the_colours_change_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    indoors = rng.integers(40, 90, (90, 160, 3)).astype(np.uint8)
    outdoors = rng.integers(150, 250, (90, 160, 3)).astype(np.uint8) * np.array([0.4, 0.8, 1.0])
    cuts = ShotCuts(0.5)
    shown = [
        indoors,
        np.roll(indoors, 9, axis=1),
        outdoors.astype(np.uint8),
        outdoors.astype(np.uint8),
        indoors,
    ]
    assert [cuts.is_cut(image) for image in shown] == [False, False, True, False, True]


def track_of(observations: list[FaceObservation]) -> Track:
    track = Track()
    for observation in observations:
        track.add(observation)
    return track


def usable_of(count: int, **options: float) -> list[FaceObservation]:
    return [seen(LEFT, person(0), number / 5, frame=number, **options) for number in range(count)]


def test_a_good_track_is_kept_with_its_medoid() -> None:
    verdict = filter_track(track_of(usable_of(8)), Faces(), Tracking())
    assert isinstance(verdict.result, FilteredTrack)
    assert verdict.usable_frames == 8
    assert verdict.dropped == {}
    np.testing.assert_allclose(verdict.result.medoid, person(0))
    assert verdict.result.continuous.all()


def test_faces_unlike_the_medoid_are_dropped() -> None:
    others = [seen(LEFT, person(1), 9.0, frame=20), seen(LEFT, person(2), 9.2, frame=21)]
    verdict = filter_track(track_of([*usable_of(10), *others]), Faces(), Tracking())
    assert isinstance(verdict.result, FilteredTrack)
    assert verdict.dropped == {Reason.OTHER_IDENTITY: 2}
    assert [frame.frame for frame in verdict.result.frames] == list(range(10))
    np.testing.assert_allclose(verdict.result.medoid, person(0), atol=1e-6)


def test_frames_blurred_compared_with_the_others_are_dropped() -> None:
    blurred = [seen(LEFT, person(0), 9.0, sharp=30.0, frame=20)]
    verdict = filter_track(
        track_of([*usable_of(10), *blurred]), Faces(min_relative_sharpness=0.4), Tracking()
    )
    assert verdict.dropped == {Reason.BLURRED: 1}
    assert verdict.usable_frames == 10


def test_a_soft_video_is_not_blurred_compared_with_itself() -> None:
    assert filter_track(track_of(usable_of(10, sharp=3.0)), Faces(), Tracking()).dropped == {}


def test_too_few_frames_are_a_track_too_short() -> None:
    verdict = filter_track(track_of(usable_of(7)), Faces(), Tracking())
    assert verdict.result == Rejection(Reason.TRACK_TOO_SHORT, "7 usable frames, 8 needed")


def test_too_few_frames_because_of_one_reason_name_that_reason_with_its_count() -> None:
    turned = [seen(LEFT, None, 2 + number / 5) for number in range(6)]
    verdict = filter_track(track_of([*usable_of(4), *turned]), Faces(), Tracking())
    assert verdict.result == Rejection(Reason.EXTREME_POSE, "4 usable frames, 8 needed; 6 dropped for this")
    assert verdict.dropped == {Reason.EXTREME_POSE: 6}


def test_a_track_without_a_usable_frame_names_what_it_suffered_from() -> None:
    verdict = filter_track(track_of([seen(LEFT, None)] * 3), Faces(), Tracking())
    assert isinstance(verdict.result, Rejection)
    assert verdict.result.reason is Reason.EXTREME_POSE
    assert verdict.usable_frames == 0


def below_the_gate(face_px: float, crop_px: int | None, reason: Reason) -> FaceObservation:
    detection = Detection(np.array([0, 0, face_px, face_px], np.float32), 0.9, np.zeros((5, 2), np.float32))
    return FaceObservation(
        0, 0.0, detection, reason=reason, square=None if crop_px is None else Square(0, 0, crop_px)
    )


def detail(observations: list[FaceObservation], faces: Faces) -> str | None:
    result = filter_track(track_of(observations), faces, Tracking()).result
    assert isinstance(result, Rejection)
    assert result.reason is observations[-1].reason
    return result.detail


def test_crops_below_the_gate_are_named_with_the_largest_and_the_gate() -> None:
    small = [below_the_gate(180, crop, Reason.CROP_TOO_SMALL) for crop in (None, 288, 312, 300)]
    assert detail(small, Faces(min_crop_px=448)) == (
        "0 usable frames, 8 needed; 4 dropped for this: head crops of at most 312 px, faces.min_crop_px=448"
    )
    assert detail([*usable_of(5), *small], Faces(min_crop_px=448)) == (
        "5 usable frames, 8 needed; 4 dropped for this: head crops of at most 312 px, faces.min_crop_px=448"
    )


def test_faces_too_small_for_landmarks_are_named_with_their_size() -> None:
    tiny = [below_the_gate(size, None, Reason.CROP_TOO_SMALL) for size in (61, 64.9)]
    assert detail(tiny, Faces(min_crop_px=448)) == (
        "0 usable frames, 8 needed; 2 dropped for this: faces of at most 64 px, head crops below 256 px, "
        "faces.min_crop_px=448"
    )


def test_boxes_below_the_second_gate_are_named_with_the_largest_and_that_gate() -> None:
    small = [below_the_gate(size, 500, Reason.FACE_TOO_SMALL) for size in (290, 299.97)]
    assert detail(small, Faces(min_px=300)) == (
        "0 usable frames, 8 needed; 2 dropped for this: faces of at most 299 px, faces.min_px=300"
    )


def test_medoid_and_median_decide_frame_by_frame() -> None:
    embeddings = np.stack([person(0), person(0, 0.9), person(0, 0.95), person(1)])
    np.testing.assert_array_equal(medoid_of(embeddings), person(0, 0.95))
    assert relatively_sharp(np.array([10.0, 100, 100, 41, 39]), 0.4).tolist() == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert relatively_sharp(np.array([]), 0.4).tolist() == []


def test_a_face_is_certain_between_two_that_are_known_to_be_the_persons() -> None:
    #          a chain      an outlier      the end
    embedded = [1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    same = [1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
    certain = between_known(np.array(embedded, dtype=bool), np.array(same, dtype=bool))
    assert certain.astype(int).tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert between_known(np.zeros(2, dtype=bool), np.ones(2, dtype=bool)).tolist() == [False, False]
    assert between_known(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)).tolist() == []


def turned(frame: int, yaw: float, who: Floats, box: Sequence[float] = LEFT) -> FaceObservation:
    return seen(box, who, frame / 6, frame=frame, yaw=yaw)


def test_a_profile_that_stays_is_not_lost_to_recognition() -> None:
    frontal = [turned(n, 0.0, person(0)) for n in range(10)]
    profile = [turned(n, 50.0 + n, person(0, 0.2)) for n in range(10, 14)]
    verdict = filter_track(track_of([*frontal, *profile]), Faces(), Tracking())
    assert (verdict.usable_frames, verdict.dropped) == (14, {})


def test_a_profile_elsewhere_is_held_to_recognition() -> None:
    frontal = [turned(n, 0.0, person(0)) for n in range(10)]
    elsewhere = [turned(12, 60.0, person(0, 0.2), RIGHT)]
    verdict = filter_track(track_of([*frontal, *elsewhere]), Faces(), Tracking())
    assert verdict.dropped == {Reason.OTHER_IDENTITY: 1}


def test_a_glitch_of_the_pose_is_dropped_with_its_reason() -> None:
    frames = [turned(n, 40.0 if n == 6 else 0.1 * n, person(0)) for n in range(12)]
    verdict = filter_track(track_of(frames), Faces(), Tracking())
    assert verdict.dropped == {Reason.POSE_OUTLIER: 1}
    assert verdict.outliers == {6: Reason.POSE_OUTLIER}


def test_frames_further_apart_than_a_third_of_a_second_have_no_glitches() -> None:
    frames = [seen(LEFT, person(0), float(n), frame=n, yaw=25.0 if n == 6 else 0.0) for n in range(12)]
    assert filter_track(track_of(frames), Faces(), Tracking()).dropped == {}


def test_frames_of_another_identity_leave_the_verdict_and_the_counts_add_up() -> None:
    verdict = filter_track(track_of(usable_of(12)), Faces(), Tracking())
    left = without(verdict, [2, 5])
    assert isinstance(left.result, FilteredTrack)
    assert [o.frame for o in left.result.frames] == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(left.result.continuous) == len(left.result.faces) == left.usable_frames == 10
    assert left.dropped == {Reason.OTHER_IDENTITY: 2}
    assert left.outliers == {2: Reason.OTHER_IDENTITY, 5: Reason.OTHER_IDENTITY}
    assert without(verdict, []) is verdict
