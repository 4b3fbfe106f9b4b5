"""Finished videos with a timeline, without a build: a head that turns, seen well, then blurred, then too dark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from staged_videos import MODELS_USED, accepted, configured, rejected
from video_files import write_video

from pipeline.plan import BuildPlan, plan_build
from pipeline.records import AnalysedFrame, Timeline, TimelineFace
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo
from shards.schema import Pose, Reason, TrackOutcome

FRAMES = 100
STEP = 4
"""One of so many frames is analysed: 6.25 a second."""
CHOSEN = range(0, 80, 10)
"""The frames of the images that `staged_videos.accepted` makes."""
STATES = [(0, 10, None), (10, 14, "blurred"), (14, 22, None), (22, 25, "too_dark")]
"""First and last + 1 analysed frame, and why the face was dropped."""


def analysed_frames(count: int = FRAMES // STEP) -> list[AnalysedFrame]:
    return [AnalysedFrame(frame=STEP * row, time_s=STEP * row / 25) for row in range(count)]


def face(row: int, track: int = 0, reason: str | None = None, *, chosen: bool = False) -> TimelineFace:
    """A face in the analysed frame of number `row`; one that is too small was not measured further."""
    small = reason == "crop_too_small"
    x = 10.0 + 40 * track
    return TimelineFace(
        frame=STEP * row,
        time_s=STEP * row / 25,
        track=track,
        box_px=(x, 10.0, x + 20, 40.0),
        face_px=24.5,
        crop_px=None if small else (x - 5, 5.0, 40.0),
        pose=None if small else Pose(yaw=2.0 * row - 20, pitch=5.0, roll=1.0),
        sharpness=None if small else 80.0,
        reason=reason,
        candidate=chosen,
        quality=30.0 + row if chosen else None,
        chosen=chosen,
    )


def turning_head() -> Timeline:
    """25 analysed frames of one track: 10 usable, 4 blurred, 8 usable, 3 too dark; 8 chosen."""
    picked = {*range(0, 10, 2), 14, 16, 18}
    faces = [
        face(row, reason=reason, chosen=row in picked)
        for start, end, reason in STATES
        for row in range(start, end)
    ]
    return Timeline(frames=analysed_frames(), faces=faces)


def seen_accepted(video: Video) -> FinalizedVideo:
    return replace(accepted(video), timeline=turning_head())


def seen_rejected(video: Video) -> FinalizedVideo:
    """Faces too small in the frames 3 to 12 of 25, none in the others."""
    bare = rejected(video, Reason.CROP_TOO_SMALL)
    faces = [face(row, reason="crop_too_small") for row in range(3, 13)]
    track = TrackOutcome(
        track=0,
        start_s=faces[0].time_s,
        end_s=faces[-1].time_s,
        frames=10,
        usable_frames=0,
        reason=Reason.CROP_TOO_SMALL,
        detail="0 usable frames, 8 needed; 10 dropped for this",
    )
    update = {
        "tracks": [track],
        "analysed_frames": 25,
        "faces_seen": 10,
        "frame_reasons": {Reason.CROP_TOO_SMALL: 10},
    }
    outcome = bare.outcome.model_copy(update=update)
    return replace(bare, outcome=outcome, timeline=Timeline(frames=analysed_frames(), faces=faces))


SEEN = {"clips/good.mp4": seen_accepted, "clips/small.mp4": seen_rejected, "talks/good.mp4": seen_accepted}
WAITING = "waiting.mp4"
"""A video that is not curated yet."""


def interrupted_build(folder: Path) -> BuildPlan:
    """A build in `folder`/mfhq of real videos in `folder`/videos, all but `WAITING` staged."""
    for number, name in enumerate((*SEEN, WAITING)):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, FRAMES - number, (128, 64))
    config = configured(folder / "videos", folder / "mfhq", "people.link_cosine=1")
    planned = plan_build(config, MODELS_USED, replace=False)
    for video in planned.manifest.videos:
        if video.uri in SEEN:
            planned.staging.write(video, SEEN[video.uri](video))
    return planned
