"""A build of the demo clips, submitted as a Ray job, against what is known of the clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.demo.truth import ClipTruth, Defect, FrameTruth, read_truth
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import FAILURES, Reason, Status, VideoOutcome
from shards.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BAD = {Defect.BLUR, Defect.MOTION_BLUR, Defect.NOISE, Defect.DARK, Defect.EYES_CLOSED}
SAME_POSE_DEG = 2.0


@pytest.fixture(scope="module")
def truth(demo_clips: Path) -> dict[str, ClipTruth]:
    return {clip.file: clip for clip in read_truth(demo_clips)}


@pytest.fixture(scope="module")
def outcomes(undisturbed: Path) -> dict[str, VideoOutcome]:
    return {video.uri: video for video in Dataset.open(undisturbed).videos()}


@pytest.fixture(scope="module")
def samples(undisturbed: Path) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in Dataset.open(undisturbed).samples():
        found.setdefault(sample.record.video_id.partition("/")[2], []).append(sample)
    return found


def frames_of(sample: Sample, truth: dict[str, ClipTruth]) -> list[FrameTruth]:
    clip = truth[sample.record.video_id.partition("/")[2]]
    return [clip.frames[image.frame] for image in sample.record.images]


def test_the_dataset_verifies(undisturbed: Path) -> None:
    assert verify(undisturbed) == []


def test_every_input_has_one_outcome_and_the_counts_add_up(
    undisturbed: Path, truth: dict[str, ClipTruth], outcomes: dict[str, VideoOutcome]
) -> None:
    dataset = Dataset.open(undisturbed)
    rows = list(dataset.videos())
    assert sorted(row.uri for row in rows) == sorted(truth)
    counts = dataset.metadata.counts
    assert sum(counts.videos.values()) == len(truth)
    assert counts.videos == {s: sum(row.status is s for row in rows) for s in Status}
    assert sum(counts.identities.values()) == sum(row.identities for row in rows) == len(dataset.keys())
    assert counts.images == 8 * len(dataset.keys())
    for row in rows:
        assert (row.reason is None) == (row.status is Status.ACCEPTED)
        assert (row.reason in FAILURES) == (row.status is Status.FAILED)
        dropped = sum(row.frame_reasons.values())
        usable = sum(track.usable_frames for track in row.tracks)
        assert row.faces_seen == dropped + usable == sum(track.frames for track in row.tracks)


def test_clips_without_a_usable_face_say_why(outcomes: dict[str, VideoOutcome]) -> None:
    reasons = {
        uri: outcomes[uri].reason
        for uri in (
            *("no-face.mp4", "far-away.mp4", "empty.mp4", "truncated.mp4"),
            "close-up, schöne Datei.mp4",
        )
    }
    assert reasons == {
        "no-face.mp4": Reason.NO_FACE,
        "far-away.mp4": Reason.CROP_TOO_SMALL,
        "empty.mp4": Reason.EMPTY_FILE,
        "truncated.mp4": Reason.TRUNCATED_FILE,
        "close-up, schöne Datei.mp4": Reason.FACE_CUT_OFF,
    }


def test_sound_clips_are_accepted_in_whatever_container(
    outcomes: dict[str, VideoOutcome],
) -> None:
    for uri in (
        "astronaut.mp4",
        "dark.mp4",
        "variable-rate.mp4",
        "rotated.mp4",
        "noisy.mkv",
    ):
        assert outcomes[uri].status is Status.ACCEPTED, (
            f"{uri}: {outcomes[uri].reason} {outcomes[uri].detail}"
        )
        assert outcomes[uri].identities == 1


@pytest.mark.parametrize("uri", ["blurred.mp4", "noisy.mkv", "dark.mp4", "eyes-closed.mp4"])
def test_spoilt_frames_are_not_chosen_where_sound_ones_of_the_same_pose_exist(
    uri: str, truth: dict[str, ClipTruth], samples: dict[str, list[Sample]]
) -> None:
    sound = np.array([pose_of(f) for f in truth[uri].frames if f.defect is None and f.faces])
    assert Counter(f.defect for f in truth[uri].frames).keys() & BAD, "the clip should hold spoilt frames"
    (sample,) = samples[uri]
    for frame in frames_of(sample, truth):
        if frame.defect in BAD:
            nearest = np.abs(sound - pose_of(frame)).max(axis=1).min()
            assert nearest > SAME_POSE_DEG, f"{frame.defect} at {frame.time_s:.2f} s was chosen"


def test_a_cut_gives_two_identities_and_never_a_mix(
    truth: dict[str, ClipTruth], samples: dict[str, list[Sample]]
) -> None:
    people = []
    for sample in samples["cut.mp4"]:
        (identity,) = {frame.faces[0].identity for frame in frames_of(sample, truth)}
        people.append(identity)
    assert sorted(people) == sorted(truth["cut.mp4"].identities)
    assert len({sample.record.person_id for sample in samples["cut.mp4"]}) == 2


def test_two_people_at_once_give_two_identities(samples: dict[str, list[Sample]]) -> None:
    first, second = samples["two-people.webm"]
    centres = [
        [image.crop_px[0] + image.crop_px[2] / 2 for image in s.record.images] for s in (first, second)
    ]
    left, right = sorted(centres, key=np.mean)
    assert max(left) < min(right)
    assert first.record.person_id != second.record.person_id


def test_stored_poses_are_the_true_ones(
    truth: dict[str, ClipTruth], samples: dict[str, list[Sample]]
) -> None:
    errors = np.array(
        [
            np.abs(np.subtract((image.pose.yaw, image.pose.pitch, image.pose.roll), pose_of(frame)))
            for uri in ("astronaut.mp4", "variable-rate.mp4", "eyes-closed.mp4")
            for sample in samples[uri]
            for image, frame in zip(sample.record.images, frames_of(sample, truth), strict=True)
        ]
    )
    assert np.median(errors, axis=0).max() < 5


def test_the_report_stands_beside_the_data(undisturbed: Path) -> None:
    page = (undisturbed / "report" / "index.html").read_text(encoding="utf-8")
    assert "far-away.mp4" in page


def pose_of(frame: FrameTruth) -> tuple[float, float, float]:
    face = frame.faces[0]
    return face.yaw, face.pitch, face.roll
