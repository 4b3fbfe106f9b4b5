"""Pictures of the analysed frames, decoded again from the video's file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from faces.types import Image
from pipeline.config import Frames
from pipeline.decode.frames import CorruptFrame, Frame
from pipeline.errors import MachineFault
from pipeline.explain.runs import frame_runs, tracks_of
from pipeline.records import Timeline, TimelineFace
from pipeline.sandbox import DecodeFailed, SandboxedDecoder

MOST_FRAMES = 32
HEIGHT = 200
"""Height of a picture, in pixels."""
JPEG_QUALITY = 75
TIMEOUT_S = 600.0
"""Longest that a video may take to decode again."""


class NoFrames(RuntimeError):  # noqa: N818 - names the fault
    """The file's frames cannot be decoded; the message states why."""


@dataclass(frozen=True)
class StripFrame:
    """A frame of the strip.

    Attributes:
        frame: its index in the video.
        time_s: when it is shown.
        size: width and height of the video's frame; the boxes of `faces` are in its pixels.
        data_uri: a small JPEG of it.
        faces: those seen in it.
    """

    frame: int
    time_s: float
    size: tuple[int, int]
    data_uri: str
    faces: list[TimelineFace]


def strip(path: Path, timeline: Timeline, decoder: str | None) -> list[StripFrame]:
    """Pictures of the frames that show most of the events.

    Args:
        path: the video's file.
        timeline: its analysed frames and faces.
        decoder: that of the build; the default when None.

    Raises:
        NoFrames: the file cannot be decoded.
    """
    wanted = frames_to_show(timeline)
    faces: dict[int, list[TimelineFace]] = {}
    for face in timeline.faces:
        faces.setdefault(face.frame, []).append(face)
    return [
        StripFrame(
            frame=frame.index,
            time_s=frame.time_s,
            size=(frame.image.shape[1], frame.image.shape[0]),
            data_uri=data_uri(_small_jpeg(frame.image)),
            faces=faces.get(frame.index, []),
        )
        for frame in read_frames(path, wanted, decoder)
    ]


def read_frames(path: Path, frames: Sequence[int], decoder: str | None) -> Iterator[Frame]:
    """Decode some frames of a video, one at a time; the only place here that opens the file.

    Raises:
        NoFrames: the file cannot be decoded.
    """
    if not frames:
        return
    name = decoder or Frames().decoder
    indices = np.array(sorted(frames), dtype=np.int64)
    sandbox = SandboxedDecoder(threads=name == "decord")
    try:
        with sandbox.open(path, TIMEOUT_S) as video:
            count = video.probe().frames
            if indices[-1] >= count:
                raise NoFrames(f"the file has {count} frames, and frame {indices[-1]} was analysed")
            for frame in video.frames(indices, name):
                if not isinstance(frame, CorruptFrame):
                    yield frame
    except DecodeFailed as failure:
        raise NoFrames(str(failure)) from failure
    except MachineFault as fault:
        raise NoFrames(str(fault)) from fault
    finally:
        sandbox.close()


def frames_to_show(timeline: Timeline, most: int = MOST_FRAMES) -> list[int]:
    """At most `most` analysed frames: chosen ones, the middle of each stretch, and then evenly over the time."""
    chosen = [face.frame for face in timeline.faces if face.chosen]
    at = {round(frame.time_s, 3): frame.frame for frame in timeline.frames}
    times = np.array(sorted(at))
    stretches = [run for track in tracks_of(timeline) for run in track.runs] + frame_runs(timeline)
    longest_first = sorted(stretches, key=lambda run: (-run.frames, run.start_s))
    middles = [
        at[times[np.abs(times - (run.start_s + run.end_s) / 2).argmin()]]
        for run in longest_first
        if len(times)
    ]
    evenly = [timeline.frames[row].frame for row in _spread(len(timeline.frames), most)]
    # At least half of the room is for frames at even intervals.
    first = list(dict.fromkeys([*chosen, *middles]))[: most // 2]
    return sorted(list(dict.fromkeys([*first, *evenly]))[:most])


def _spread(count: int, most: int) -> list[int]:
    """Rows of a list in an order in which every beginning is spread evenly: first, last, middle, quarters."""
    order: dict[int, None] = {}
    parts = 1
    while len(order) < min(count, most) and count:
        for part in range(parts + 1):
            order.setdefault(round(part * (count - 1) / parts))
        parts *= 2
    return list(order)[:most]


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _small_jpeg(image: Image) -> bytes:
    height, width = image.shape[:2]
    if height > HEIGHT:
        size = (max(1, round(width * HEIGHT / height)), HEIGHT)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), JPEG_QUALITY, "RGB", "420")
    return jpeg
