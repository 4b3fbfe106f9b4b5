"""The outcome of a video's analysis: accepted so far, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.decode.probe import Probe
from pipeline.records import AnalysedFrame, Analysis, CandidateImage
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.stopwatch import Stopwatch
from shards.schema import FAILURES, FromSource, Reason, Status, TrackOutcome, VideoOutcome


@dataclass(frozen=True)
class AnalysedVideo:
    """An analysis, and the encoded images of its candidates, track after track."""

    analysis: Analysis
    images: list[CandidateImage]


def failed(video: Video, rejection: Rejection) -> AnalysedVideo:
    """The outcome of a video whose analysis failed."""
    return rejected(video, rejection, {}, Stopwatch())


def video_rejection(tracks: list[TrackOutcome]) -> Rejection | None:
    """Why a video gave no identity: the reason of its best track; None when it gave one."""
    if any(track.reason is None for track in tracks):
        return None
    if not tracks:
        return Rejection(Reason.NO_FACE, "no face that could pass the gate was found in any analysed frame")
    best = max(tracks, key=lambda track: (track.usable_frames, track.frames))
    assert best.reason is not None  # noqa: S101 - by the first line of this function
    more = f" (the best of {len(tracks)} tracks)" if len(tracks) > 1 else ""
    return Rejection(Reason(best.reason), f"{best.detail}{more}")


def mostly_corrupt(analysed: list[AnalysedFrame]) -> Rejection | None:
    """The rejection of a video when more than half of its analysed frames are corrupt; otherwise None."""
    corrupt = sum(frame.reason == Reason.CORRUPT_FRAME for frame in analysed)
    if 2 * corrupt <= len(analysed):
        return None
    detail = f"{corrupt} of {len(analysed)} analysed frames are damaged or depend on damaged ones"
    return Rejection(Reason.CORRUPT_FRAME, detail)


def without_identity(track: TrackOutcome, rejection: Rejection) -> TrackOutcome:
    """A track of a rejected video: with its own reason where it has one."""
    if track.reason is not None:
        return track
    return track.model_copy(update={"reason": rejection.reason, "detail": rejection.detail})


def verdict_of(tracks: list[TrackOutcome], damage: Rejection | None) -> dict[str, Any]:
    """Status, reason and number of identities of a video, as fields of its outcome."""
    rejection = damage or video_rejection(tracks)
    if rejection is None:
        return {
            "status": Status.ACCEPTED,
            "identities": sum(track.reason is None for track in tracks),
        }
    return {"status": Status.REJECTED, "reason": rejection.reason, "detail": rejection.detail}


def rejected(video: Video, rejection: Rejection, facts: dict[str, Any], watch: Stopwatch) -> AnalysedVideo:
    """A video without candidates, with what is known of it."""
    status = Status.FAILED if rejection.reason in FAILURES else Status.REJECTED
    outcome = VideoOutcome(
        **(named(video) | facts), status=status, reason=rejection.reason, detail=rejection.detail
    )
    return AnalysedVideo(Analysis(outcome=outcome, seconds=dict(watch.seconds)), [])


def named(video: Video) -> dict[str, Any]:
    """What the source says of a video, as fields of its outcome."""
    known = set(FromSource.model_fields) | {"video_id", "uri", "bytes"}
    return video.model_dump(include=known)


def facts_of(found: Probe) -> dict[str, Any]:
    """What the probe says of a file, as fields of an outcome."""
    width, height = found.shown_size
    return {
        "container": found.container,
        "codec": found.codec,
        "width": width,
        "height": height,
        "fps": round(found.fps, 3),
        "frames": found.frames,
        "duration_s": round(found.duration_s, 3),
        "rotation_deg": found.rotation_deg,
        "color_transfer": found.color_transfer,
    }
