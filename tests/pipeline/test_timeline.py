"""The timeline of a video: every face with its measurements and the decision of each step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explained_videos import analysed_frames, face, turning_head
from staged_videos import accepted, configured, make_source
from test_finalize import analysis_of, config, turning
from test_track_and_filter import LEFT, person, seen

from faces.crop import Square
from faces.registry import load_weights
from faces.types import HeadPose
from pipeline.config import Faces, Tracking
from pipeline.records import CandidateImage, Timeline, TimelineFace
from pipeline.sandbox import SandboxedDecoder
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Video
from pipeline.stages.analyse import VideoAnalyser
from pipeline.stages.finalize import finalize
from pipeline.stages.select import Pick
from pipeline.stages.timeline import timeline_faces
from pipeline.stages.track import Track
from pipeline.stages.track_filter import filter_track
from pipeline.staging import Staging, read_staged_video
from shards.landmarks import LANDMARKS
from shards.schema import Pose, Reason

NO_IMAGE = CandidateImage(b"", b"", bytes(8 * LANDMARKS))


def track_of(*observations: object) -> Track:
    track = Track()
    for observation in observations:
        track.add(observation)  # type: ignore[arg-type]
    return track


def noted(track: Track, picks: list[Pick]) -> list[TimelineFace]:
    return timeline_faces(3, track, filter_track(track, Faces(), Tracking(), 0.5), picks)


def test_frames_that_the_track_drops_have_its_reason_and_the_others_none() -> None:
    observations = [seen(LEFT, person(0), 0.2 * number, frame=5 * number) for number in range(12)]
    observations[3] = seen(LEFT, person(0), 0.6, frame=15, sharp=10)
    observations[7] = seen(LEFT, person(1), 1.4, frame=35)
    observations[9] = seen(LEFT, None, 1.8, frame=45)
    faces = noted(track_of(*observations), [Pick(0, 0, 0), Pick(3, 1, 0)])
    assert [found.frame for found in faces] == [5 * number for number in range(12)]
    assert {found.frame: found.reason for found in faces if found.reason} == {
        15: "blurred",
        35: "other_identity",
        45: "extreme_pose",
    }
    # Rows count the usable faces: the fourth of them is in frame 20, for frame 15 is dropped.
    assert [found.frame for found in faces if found.candidate] == [0, 20]
    assert {found.track for found in faces} == {3}


def test_reasons_are_noted_also_where_too_few_frames_are_left() -> None:
    observations = [seen(LEFT, person(0), 0.2 * number, frame=number) for number in range(4)]
    observations[2] = seen(LEFT, person(0), 0.4, frame=2, sharp=1)
    faces = noted(track_of(*observations), [])
    assert [found.reason for found in faces] == [None, None, "blurred", None]
    assert not any(found.candidate for found in faces)


def test_what_was_measured_before_a_face_was_dropped_is_kept() -> None:
    dropped = seen(LEFT, None)
    measured = replace(dropped, pose=HeadPose(80.04, -3, 1), square=Square(4, 5, 300), sharpness=12.34)
    first, second = noted(track_of(measured, dropped), [])
    assert (first.pose, first.crop_px, first.sharpness) == (
        Pose(yaw=80.0, pitch=-3, roll=1),
        (4, 5, 300),
        12.3,
    )
    assert (second.pose, second.crop_px, second.sharpness) == (None, None, None)
    assert (first.box_px, first.face_px) == (LEFT, 100.0)


def test_the_choice_marks_eight_frames_and_the_score_of_every_candidate() -> None:
    analysis = analysis_of(turning(0))
    seen_faces = [face(0).model_copy(update={"frame": frame, "candidate": frame < 20}) for frame in range(25)]
    analysis = analysis.model_copy(update={"timeline": Timeline(frames=[], faces=seen_faces)})
    found = finalize(analysis, [NO_IMAGE] * 20, config(), False)
    chosen = [image.frame for image in found.identities[0].images]
    assert [f.frame for f in found.timeline.faces if f.chosen] == chosen
    qualities = [f.quality for f in found.timeline.faces]
    assert qualities == [20.0, 30.0] * 10 + [None] * 5


def test_a_candidate_of_another_identity_has_that_reason() -> None:
    track = turning(0)
    candidates = [c.model_copy(update={"other_identity": c.frame == 4}) for c in track.candidates]
    seen_faces = [face(0).model_copy(update={"frame": frame}) for frame in range(20)]
    analysis = analysis_of(track.model_copy(update={"candidates": candidates})).model_copy(
        update={"timeline": Timeline(frames=[], faces=seen_faces)}
    )
    found = finalize(analysis, [NO_IMAGE] * 20, config(), False)
    assert {f.frame: f.reason for f in found.timeline.faces if f.reason} == {4: Reason.OTHER_IDENTITY}
    assert not any(f.chosen for f in found.timeline.faces if f.frame == 4)


@pytest.fixture
def staged(tmp_path: Path) -> tuple[Staging, Path]:
    source = make_source(tmp_path / "clips", {"a.mp4": 10})
    (video,) = list_folder(configured(source, tmp_path / "mfhq").source).videos
    staging = Staging.of(tmp_path / "mfhq", "0123456789abcdef" * 4)
    staging.write(video, replace(accepted(video), timeline=turning_head()))
    assert staging.timeline(video) == turning_head()
    assert staging.is_readable(video)
    return staging, staging.path(video)


def test_a_staged_timeline_comes_back_as_it_was(staged: tuple[Staging, Path]) -> None:
    found = read_staged_video(staged[1])
    assert found.timeline == turning_head()
    assert len(found.identities) == 1


def test_a_staged_file_of_an_older_version_has_no_timeline(staged: tuple[Staging, Path]) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(staged[1])
    pq.write_table(table.drop_columns(["timeline"]), staged[1])
    found = read_staged_video(staged[1])
    assert found.timeline is None
    assert len(found.identities) == 1


def test_four_hundred_frames_of_three_faces_take_less_than_one_image(tmp_path: Path) -> None:
    """A timeline with the noise of real measurements stays small beside the images."""
    source = make_source(tmp_path / "clips", {"a.mp4": 10})
    (video,) = list_folder(configured(source, tmp_path / "mfhq").source).videos
    random = np.random.default_rng(0)

    def measured(row: int, track: int) -> TimelineFace:
        box = tuple(round(float(value), 1) for value in random.uniform(0, 1000, 4))
        yaw, pitch, roll, sharp = (round(float(value), 1) for value in random.normal(0, 20, 4))
        update = {"box_px": box, "pose": Pose(yaw=yaw, pitch=pitch, roll=roll), "sharpness": abs(sharp)}
        return face(row, track).model_copy(update=update)

    timeline = Timeline(
        frames=analysed_frames(400), faces=[measured(row, track) for track in range(3) for row in range(400)]
    )
    without, with_it = tmp_path / "without", tmp_path / "with"
    for folder, kept in ((without, Timeline()), (with_it, timeline)):
        Staging.of(folder, "0" * 64).write(video, replace(accepted(video), timeline=kept))
    sizes = [sum(p.stat().st_size for p in folder.rglob("*.parquet")) for folder in (without, with_it)]
    assert sizes[1] - sizes[0] < 64_000


@pytest.mark.clips
@pytest.mark.parametrize("name", ["fr_hamilton.mp4", "keep_r3.mp4"])
def test_the_timeline_of_real_people_adds_up_to_the_outcome(clips: Path, tmp_path: Path, name: str) -> None:
    facts = (clips / name).stat()
    video = Video(
        video_id=f"clips/{name}",
        source="clips",
        uri=name,
        path=str(clips / name),
        bytes=facts.st_size,
        modified_ns=facts.st_mtime_ns,
    )
    settings = configured(clips, tmp_path / "mfhq", "faces.min_crop_px=100")
    weights = load_weights(["yunet", "face_landmarker", "sface"], None)
    decoder = SandboxedDecoder()
    analysis = VideoAnalyser(settings, weights, decoder).analyse(video).analysis
    decoder.close()
    outcome, timeline = analysis.outcome, analysis.timeline
    assert len(timeline.frames) == outcome.analysed_frames > 30
    assert len(timeline.faces) == outcome.faces_seen > 60
    reasons = Counter(found.reason for found in timeline.faces if found.reason)
    assert reasons == {str(reason): count for reason, count in outcome.frame_reasons.items()}
    for track in outcome.tracks:
        faces = [found for found in timeline.faces if found.track == track.track]
        assert len(faces) == track.frames
        assert sum(found.reason is None for found in faces) == track.usable_frames
        assert (faces[0].time_s, faces[-1].time_s) == (track.start_s, track.end_s)
    usable = [found for found in timeline.faces if found.reason is None]
    assert all(found.pose and found.crop_px and found.sharpness is not None for found in usable)
    assert sum(found.candidate for found in timeline.faces) == sum(len(t.candidates) for t in analysis.tracks)
