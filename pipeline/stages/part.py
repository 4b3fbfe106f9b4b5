"""The part of a file that a video is: its frames, its time span and the box of its person."""

from __future__ import annotations

from typing import Any

from pipeline.decode.plan import frames_between
from pipeline.decode.probe import Probe
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed
from pipeline.sources.annotations.clip import BEYOND
from pipeline.sources.manifest import Video
from shards.schema import IMAGES_PER_IDENTITY, Reason


def part_of(video: Video, found: Probe) -> range:
    """The frames of a file that are the video, as indices in display order."""
    if video.span_frames is not None:
        first, last = video.span_frames
        return range(min(first, found.frames), min(last + 1, found.frames))
    if video.span_s is not None:
        return frames_between(found.times_s + found.late_s, *video.span_s)
    return range(found.frames)


def place_of(video: Video, found: Probe, part: range) -> dict[str, Any]:
    """Where in its file a video is: the span in seconds, and the person's box as fractions of the frame.

    Raises:
        DecodeFailed: the box lies outside of the frame.
    """
    span_s, box = video.span_s, video.annotated_box
    if video.span_frames is not None and part:
        span_s = (
            round(float(found.times_s[part[0]]), 3),
            round(float(found.times_s[part[-1]]) + 1 / found.fps, 3),
        )
    if video.annotated_box_px is not None:
        width, height = found.shown_size
        x0, y0, x1, y1 = video.annotated_box_px
        box = (x0 / width, y0 / height, x1 / width, y1 / height)
        if max(box) > 1 + BEYOND:
            detail = f"its annotated box ends at {x1:g}, {y1:g}, outside of the frame of {width} x {height}"
            raise DecodeFailed(Rejection(Reason.NO_FACE, detail))
    return {"span_s": span_s, "annotated_box": box}


def too_short(part: range, found: Probe, video: Video) -> Rejection:
    """The rejection of a video that has fewer frames than an identity has images."""
    of = ""
    if video.span_s is not None:
        of = f" of {found.frames} are from {video.span_s[0]:g} to {video.span_s[1]:g} s"
    if video.span_frames is not None:
        of = f" of {found.frames} are frames {video.span_frames[0]} to {video.span_frames[1]}"
    return Rejection(Reason.TOO_SHORT, f"{len(part)} frames{of}, {IMAGES_PER_IDENTITY} needed")
