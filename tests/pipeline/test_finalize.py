"""The final outcome of a video: which tracks become samples, under which keys, and why the others do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.config import Config
from pipeline.records import Analysis, Candidate, CandidateImage, CandidateTrack
from pipeline.stages.finalize import FinalizedVideo, finalize, sample_key
from pipeline.stages.outcome import video_rejection
from settings.loading import load_workflow
from shards.canonical import sha256_hex
from shards.landmarks import LANDMARKS, decode_landmarks
from shards.record_checks import validate_video
from shards.schema import Key, Pose, Reason, Status, TrackOutcome, VideoOutcome

WORKFLOW = Path(__file__).parents[2] / "workflows" / "curate_embedded.yaml"
SET = ["source.path=/data/clips", "output=/data/mfhq"]
KEY: TypeAdapter[str] = TypeAdapter(Key)


def config(*overrides: str) -> Config:
    return load_workflow(WORKFLOW, [*SET, *overrides], Config)


def candidate(frame: int, yaw: float, cluster: int, quality: float) -> Candidate:
    return Candidate(
        frame=frame,
        time_s=frame / 25,
        box_px=(0, 0, 500, 500),
        face_px=500,
        crop_px=(0, 0, 600),
        pose=Pose(yaw=yaw, pitch=0, roll=0),
        keypoints_crop_px=[(0.0, 0.0)] * 5,
        eyes_open=0.9,
        eyes_closed=False,
        sharpness=100,
        identity_cosine=1,
        cluster=cluster,
        quality=quality,
    )


def turning(track: int, poses: int = 10, step_deg: float = 5.0, quality: float = 20.0) -> CandidateTrack:
    """A head that turns; each pose has a good candidate and one whose score is 10 higher."""
    made = [
        candidate(2 * number + variant, number * step_deg, number, quality + 10 * variant)
        for number in range(poses)
        for variant in (0, 1)
    ]
    return CandidateTrack(track=track, embedding=[1.0, 0.0], candidates=made)


def analysis_of(*tracks: CandidateTrack, rejected: int = 0, uri: str = "a.mp4") -> Analysis:
    waiting = [
        TrackOutcome(track=t.track, start_s=t.track, end_s=t.track + 1, frames=30, usable_frames=25)
        for t in tracks
    ]
    others = [
        TrackOutcome(
            track=len(tracks) + n,
            start_s=0,
            end_s=1,
            frames=3,
            usable_frames=1,
            reason=Reason.TRACK_TOO_SHORT,
            detail="-",
        )
        for n in range(rejected)
    ]
    outcome = VideoOutcome(
        video_id=f"clips/{uri}",
        source="clips",
        uri=uri,
        bytes=1,
        status=Status.ACCEPTED,
        tracks=[*waiting, *others],
        identities=len(tracks),
    )
    return Analysis(outcome=outcome, tracks=list(tracks), seconds={"decode": 1.0})


def finalized(analysis: Analysis, *overrides: str, higher_is_better: bool = False) -> FinalizedVideo:
    count = sum(len(track.candidates) for track in analysis.tracks)
    images = [
        CandidateImage(b"jpeg %d" % n, b"mask %d" % n, np.full((LANDMARKS, 2), n, "<f4").tobytes())
        for n in range(count)
    ]
    found = finalize(analysis, images, config(*overrides), higher_is_better)
    assert validate_video(found.outcome) == []
    return found


def frames_of(found: FinalizedVideo) -> list[list[int]]:
    return [[image.frame for image in identity.images] for identity in found.identities]


def test_a_track_with_enough_poses_becomes_a_sample_of_eight_images_in_order_of_time() -> None:
    found = finalized(analysis_of(turning(0), rejected=1))
    assert (found.outcome.status, found.outcome.identities) == (Status.ACCEPTED, 1)
    (frames,) = frames_of(found)
    assert len(frames) == 8
    assert frames == sorted(frames)
    (identity,) = found.identities
    assert identity.key == found.outcome.tracks[0].key
    assert (identity.track_start_s, identity.track_end_s) == (0, 1)
    assert found.outcome.tracks[1].reason is Reason.TRACK_TOO_SHORT
    assert found.seconds == {"decode": 1.0}


def test_an_identity_has_what_linking_needs_to_know_of_its_track() -> None:
    known = {"fingerprint": b"moves", "seen_with": [1, 4], "image_bytes": 81_234.5}
    (identity,) = finalized(analysis_of(turning(0).model_copy(update=known))).identities
    assert {name: getattr(identity, name) for name in known} == known
    assert not known.keys() & identity.model_dump().keys(), (
        "the summary holds it, and not the identity's JSON"
    )


@pytest.mark.parametrize(("higher_is_better", "variant"), [(False, 0), (True, 1)])
def test_the_direction_of_the_metric_decides_which_image_of_a_pose_is_taken(
    higher_is_better: bool, variant: int
) -> None:
    found = finalized(analysis_of(turning(0)), higher_is_better=higher_is_better)
    assert {frame % 2 for frame in frames_of(found)[0]} == {variant}
    assert all(image.quality.higher_is_better is higher_is_better for image in found.identities[0].images)


def test_each_record_has_the_digest_of_its_own_image_and_mask_and_landmarks() -> None:
    found = finalized(analysis_of(turning(0), turning(1, quality=5)))
    # The second track's candidates come after twenty of the first.
    assert found.samples[1].jpegs[0].startswith(b"jpeg 2")
    for sample in found.samples:
        images = sample.identity.images
        assert [image.sha256 for image in images] == [sha256_hex(jpeg) for jpeg in sample.jpegs]
        assert [image.mask_sha256 for image in images] == [sha256_hex(mask) for mask in sample.masks]
        rows = [20 * sample.identity.track + image.frame for image in images]
        assert sample.jpegs == tuple(b"jpeg %d" % row for row in rows)
        assert sample.identity.landmarks_sha256 == sha256_hex(sample.landmarks)
        assert decode_landmarks(sample.landmarks)[:, 0, 0].tolist() == rows


def test_an_image_of_another_identity_is_replaced_and_counted() -> None:
    track = turning(0, poses=9)
    before = frames_of(finalized(analysis_of(track)))[0]
    other = before[3]
    candidates = [c.model_copy(update={"other_identity": c.frame == other}) for c in track.candidates]
    found = finalized(analysis_of(track.model_copy(update={"candidates": candidates})))
    (frames,) = frames_of(found)
    assert len(frames) == 8
    assert other not in frames
    assert found.outcome.frame_reasons == {"other_identity": 1}
    assert found.outcome.tracks[0].usable_frames == 24


def test_a_track_that_lacks_poses_for_its_other_identities_names_that_reason() -> None:
    track = turning(0, poses=8)
    candidates = [c.model_copy(update={"other_identity": c.frame < 4}) for c in track.candidates]
    found = finalized(analysis_of(track.model_copy(update={"candidates": candidates})))
    (outcome,) = found.outcome.tracks
    assert outcome.reason is Reason.OTHER_IDENTITY
    assert outcome.detail is not None
    assert outcome.detail.startswith("4 of 16 candidates show another identity; ")


def test_two_people_are_two_samples_with_keys_of_their_own() -> None:
    found = finalized(analysis_of(turning(0), turning(1)))
    assert found.outcome.identities == 2
    assert len({identity.key for identity in found.identities}) == 2


def test_a_person_who_keeps_still_does_not_cost_the_other_one_the_sample() -> None:
    found = finalized(analysis_of(turning(0, step_deg=0.05), turning(1)))
    assert (found.outcome.status, found.outcome.identities) == (Status.ACCEPTED, 1)
    assert found.outcome.tracks[0].reason is Reason.TOO_FEW_POSES
    assert found.identities[0].track == 1
    assert found.samples[0].jpegs[0].startswith(b"jpeg 2")


def test_a_video_whose_last_track_is_rejected_is_rejected_with_its_reason() -> None:
    outcome = finalized(analysis_of(turning(0, step_deg=0.05), rejected=2)).outcome
    assert (outcome.status, outcome.identities) == (Status.REJECTED, 0)
    assert outcome.reason is Reason.TOO_FEW_POSES
    assert outcome.detail is not None
    assert outcome.detail.endswith("(the best of 3 tracks)")


@pytest.mark.parametrize(("override", "higher_is_better"), [("15", False), ("35", True)])
def test_images_worse_than_the_limit_are_never_chosen_and_the_reason_names_it(
    override: str, higher_is_better: bool
) -> None:
    limit = f"selection.worst_quality={override}"
    outcome = finalized(analysis_of(turning(0)), limit, higher_is_better=higher_is_better).outcome
    assert outcome.reason is Reason.LOW_QUALITY
    assert outcome.detail is not None
    assert outcome.detail.startswith(f"0 of 20 candidates reach {limit}; ")


def test_a_limit_that_enough_images_reach_only_leaves_the_others_out() -> None:
    found = finalized(analysis_of(turning(0)), "selection.worst_quality=20")
    assert {frame % 2 for frame in frames_of(found)[0]} == {0}


def test_a_video_that_failed_stays_as_it_is() -> None:
    outcome = VideoOutcome(
        video_id="clips/a.mp4",
        source="clips",
        uri="a.mp4",
        bytes=0,
        status=Status.FAILED,
        reason=Reason.EMPTY_FILE,
        detail="0 bytes",
    )
    found = finalized(Analysis(outcome=outcome))
    assert (found.outcome, found.identities) == (outcome, [])


def test_a_video_gave_nothing_for_the_reason_of_its_best_track() -> None:
    def track(number: int, usable: int, reason: Reason | None) -> TrackOutcome:
        return TrackOutcome(
            track=number,
            start_s=0,
            end_s=1,
            frames=20,
            usable_frames=usable,
            reason=reason,
            detail=f"detail {number}",
        )

    small, still = track(0, 0, Reason.FACE_TOO_SMALL), track(1, 12, Reason.TOO_FEW_POSES)
    verdict = video_rejection([small, still])
    assert verdict is not None
    assert (verdict.reason, verdict.detail) == (Reason.TOO_FEW_POSES, "detail 1 (the best of 2 tracks)")
    assert video_rejection([small, track(2, 9, None)]) is None
    nothing = video_rejection([])
    assert nothing is not None
    assert nothing.reason is Reason.NO_FACE


def key_of(uri: str, track: int = 0, source: str = "clips") -> str:
    return sample_key(
        VideoOutcome(video_id=f"{source}/{uri}", source=source, uri=uri, bytes=1, status=Status.ACCEPTED),
        track,
    )


def test_a_key_can_be_read() -> None:
    digest = sha256_hex(b"clips/season 1/Ep.2 final.mp4")[:16]
    assert key_of("season 1/Ep.2 final.mp4", track=3) == f"clips_season-1-Ep-2-final_{digest}_03"


@settings(max_examples=200)
@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True), st.integers(0, 2000))
def test_keys_are_valid_and_different_whatever_the_files_are_called(names: list[str], track: int) -> None:
    keys = {key_of(f"{name}.mp4", number, "s" * 20) for name in names for number in (track, track + 1)}
    assert len(keys) == 4
    assert all(KEY.validate_python(key) == key for key in keys)


@pytest.mark.parametrize(
    "uri", ["../../etc/passwd.mp4", "-rf.mp4", "....mp4", "顔.mp4", "a" * 400 + ".mp4", "a/b\\xff.mp4"]
)
def test_hostile_names_give_keys_without_dots_slashes_or_leading_dashes(uri: str) -> None:
    assert KEY.validate_python(key_of(uri)) == key_of(uri)


def test_names_that_differ_only_in_what_a_key_cannot_hold_have_different_keys() -> None:
    assert len({key_of("a b.mp4"), key_of("a.b.mp4"), key_of("a-b.mp4"), key_of("a b.mkv")}) == 4
