"""The lines of text that the terminal and the page have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.explain.runs import TrackFaces
from pipeline.records import TimelineFace
from pipeline.report.reasons import meaning
from pipeline.sources.manifest import one_line
from shards.schema import TrackOutcome, VideoOutcome

DASH = "-"


def verdict(outcome: VideoOutcome) -> str:
    """The outcome in a line: status, reason, meaning of the reason."""
    if outcome.reason is None:
        count = outcome.identities
        return f"{outcome.status}: {count} {'identity' if count == 1 else 'identities'}"
    return f"{outcome.status}: {outcome.reason} ({meaning(outcome.reason)})"


def media_format(outcome: VideoOutcome) -> str:
    """Size, codec, rate and length of a video, as far as they are known."""
    parts = [
        f"{outcome.width} x {outcome.height}" if outcome.width else None,
        f"{outcome.codec} in {outcome.container}" if outcome.codec else None,
        f"{outcome.fps:g} fps" if outcome.fps else None,
        f"{outcome.duration_s:g} s" if outcome.duration_s is not None else None,
        f"{outcome.frames:,} frames" if outcome.frames is not None else None,
        f"{outcome.bytes:,} bytes",
    ]
    return ", ".join(part for part in parts if part)


def from_source(outcome: VideoOutcome) -> dict[str, str]:
    """What the source says of a video, by a short name; without what it does not say."""
    facts = {
        "part": _part(outcome),
        "box": _annotated_box(outcome),
        "origin": outcome.origin,
        "person": outcome.source_person and f"{outcome.source_person} (the source's label)",
        "attributes": "; ".join(f"{each.name}: {each.value}" for each in outcome.attributes),
    }
    return {name: one_line(text) for name, text in facts.items() if text}


def _part(outcome: VideoOutcome) -> str | None:
    """Which part of its file a video is."""
    if outcome.span_s is None:
        return None
    start_s, end_s = outcome.span_s
    return f"{start_s:g} to {end_s:g} s of the file {outcome.uri}"


def _annotated_box(outcome: VideoOutcome) -> str | None:
    """The annotated box in fractions of the frame and, where its size is known, in pixels."""
    if outcome.annotated_box is None:
        return None
    x0, y0, x1, y1 = outcome.annotated_box
    text = f"x {x0:.3g} to {x1:.3g}, y {y0:.3g} to {y1:.3g} of the frame"
    if not outcome.width or not outcome.height:
        return text
    x0, x1, y0, y1 = (*(x * outcome.width for x in (x0, x1)), *(y * outcome.height for y in (y0, y1)))
    return f"{text} (x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f} px)"


def analysed(outcome: VideoOutcome) -> str:
    """How many frames were analysed, how many of them are corrupt, and the outcome of their faces."""
    corrupt = f" ({outcome.corrupt_frames} corrupt)" if outcome.corrupt_frames else ""
    dropped = sum(outcome.frame_reasons.values())
    text = (
        f"{outcome.analysed_frames} frames{corrupt}, {outcome.faces_seen} faces: "
        f"{outcome.faces_seen - dropped} usable"
    )
    return ", ".join([text, *(f"{count} {reason}" for reason, count in outcome.frame_reasons.items())])


def gates(settings: Mapping[str, Any]) -> list[str]:
    """Configuration keys with their values, as on a command line."""
    return [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in settings.items()
    ]


def track_result(track: TrackOutcome) -> str:
    """The outcome of a track: a sample, or the reason why not; a duplicate's key is not in the dataset."""
    if track.reason is None:
        return f"sample {track.key}" if track.key else "no sample"
    return f"{track.reason}: {track.detail}" if track.detail else str(track.reason)


def sizes(faces: Sequence[TimelineFace]) -> str:
    """Range of the detector's box in source pixels."""
    return spread([face.face_px for face in faces], "{:.0f}")


def crops(faces: Sequence[TimelineFace]) -> str:
    """Range of the head crop's side in source pixels, where it is known."""
    return spread([face.crop_px[2] for face in faces if face.crop_px], "{:.0f}")


def angles(faces: Sequence[TimelineFace], angle: Callable[[TimelineFace], float]) -> str:
    """Range of an angle in degrees, where the pose is known."""
    return spread([round(angle(face)) for face in faces if face.pose], "{:+d}", "..")


def spread(values: Sequence[float], form: str, to: str = DASH) -> str:
    """The least and the largest value, once when they look the same; a dash when there is none."""
    if not values:
        return DASH
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low}{to}{high}"


def yaw(face: TimelineFace) -> float:
    """Yaw in degrees, of a face whose pose is known."""
    assert face.pose is not None  # noqa: S101 - `angles` passes only those
    return face.pose.yaw


def pitch(face: TimelineFace) -> float:
    """Pitch in degrees, of a face whose pose is known."""
    assert face.pose is not None  # noqa: S101 - `angles` passes only those
    return face.pose.pitch


def faces_by_track(tracks: Sequence[TrackFaces]) -> dict[int, list[TimelineFace]]:
    """The faces of each track."""
    return {track.number: track.faces for track in tracks}
