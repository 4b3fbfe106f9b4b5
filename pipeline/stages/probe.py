"""First look at a video file: is it one, is it whole, and when is each of its frames shown?

The whole file is demultiplexed (not decoded) with PyAV. That costs a read that decoding would need anyway,
finds truncated files whose header promises more than is there, and gives every frame's true time, which
variable frame rates make different from index / fps.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from shards.schema import Reason

LOST_SHARE = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN})
"""What a network file system says when its server is away."""
STILL_CONTAINERS = ("image2", "_pipe", "gif", "apng")
COMPLETE = 0.95
"""Least share of the promised frames or seconds that must be there; edit lists and rounding cost a few."""


@dataclass(frozen=True)
class Probe:
    """What is known of a video before any frame is decoded."""

    container: str
    codec: str
    coded_width: int
    coded_height: int
    rotation_deg: int
    """Quarter turns, counter-clockwise, that a player applies to show the frame: 0, 90, 180 or 270."""
    pixel_aspect: Fraction
    """Width of a pixel divided by its height."""
    times_s: NDArray[np.float64]
    """(frames,) presentation time of every frame in display order; the first is 0."""
    video_streams: int
    """How many there are; the best of them is meant."""

    @property
    def frames(self) -> int:
        """Number of frames in the file."""
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(self.times_s[-1]) + 1.0 / self.fps

    @property
    def fps(self) -> float:
        """Mean frames a second."""
        span = float(self.times_s[-1])
        return (self.frames - 1) / span if span > 0 else 25.0

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) as a player shows the video, rotation and pixel shape applied."""
        width = round(self.coded_width * self.pixel_aspect)
        height = self.coded_height
        return (height, width) if self.rotation_deg % 180 else (width, height)


def file_sha256(path: Path) -> str:
    """Sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def probe(path: Path) -> Probe | Rejection:
    """Look at a video file without decoding more than its first frame.

    Raises:
        MachineFault: the folder of the file is gone: a share that is away would fail all its videos.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    import av

    try:
        if path.stat().st_size == 0:
            return Rejection(Reason.EMPTY_FILE, "0 bytes")
        with path.open("rb"):
            pass
    except OSError as error:
        if error.errno in LOST_SHARE or not path.parent.is_dir():
            raise MachineFault(
                f"{path} cannot be reached ({error.strerror}); is the source mounted on every node? The same "
                "command again continues"
            ) from error
        return Rejection(Reason.UNREADABLE, error.strerror)
    try:
        index = _read_index(path)
    except MemoryError as error:
        raise MemoryError(_message(error)) from error
    except (av.FFmpegError, ValueError) as error:
        return Rejection(Reason.UNREADABLE, _message(error))
    if isinstance(index, Rejection):
        return index
    found = _describe_first_frame(path, index.times_s)
    if isinstance(found, Probe) and found.duration_s < COMPLETE * index.promised_s - 1.0:
        return Rejection(
            Reason.TRUNCATED_FILE, f"{found.duration_s:.1f} of {index.promised_s:.1f} seconds are in the file"
        )
    return found


def best_stream(container: Any) -> Any:
    """The video stream that players show when there are several; None when there is none."""
    return container.streams.best("video")


@dataclass(frozen=True)
class _Index:
    """What demultiplexing tells; a promise is 0 where the file makes none."""

    times_s: NDArray[np.float64]
    promised_s: float


def _read_index(path: Path) -> _Index | Rejection:
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        stream = best_stream(container)
        if stream is None:
            kinds = sorted({stream.type for stream in container.streams})
            return Rejection(Reason.NO_VIDEO_STREAM, f"streams: {', '.join(kinds) or 'none'}")
        name = container.format.name
        if any(still in name for still in STILL_CONTAINERS):
            return Rejection(Reason.STILL_IMAGE, f"container {name}")
        if stream.disposition & stream.disposition.attached_pic:
            return Rejection(Reason.NO_VIDEO_STREAM, "the only picture is the cover of an audio file")
        packets, times = _packets(container, stream)
        promised_frames, promised_s = stream.frames, _promised_seconds(container, stream)
    if len(times) == 0:
        return Rejection(Reason.UNREADABLE, "the video stream holds no frames")
    if packets < COMPLETE * promised_frames:
        packets = _packets_without_edits(path)
    if packets < COMPLETE * promised_frames:
        return Rejection(Reason.TRUNCATED_FILE, f"{packets} of {promised_frames} frames are in the file")
    return _Index(times, promised_s)


def _packets(container: Any, stream: Any) -> tuple[int, NDArray[np.float64]]:
    """Number of coded frames, and the times of those that are shown (an edit list may hide some)."""
    count = 0
    stamps: list[int | None] = []
    for packet in container.demux(stream):
        if packet.size:
            count += 1
            if not packet.is_discard:
                stamps.append(packet.pts if packet.pts is not None else packet.dts)
    if any(stamp is None for stamp in stamps):
        # Raw streams carry no times: the frame rate gives them.
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        return count, np.arange(len(stamps)) / rate
    seconds = np.sort(np.array(stamps, dtype=np.float64)) * float(stream.time_base)
    return count, seconds - seconds[0] if len(seconds) else seconds


def _packets_without_edits(path: Path) -> int:
    """Number of coded frames, with those that an edit list cuts away: they are hidden, not missing."""
    import av

    with av.open(str(path), options={"ignore_editlist": "1"}, metadata_errors="replace") as container:
        return sum(packet.size > 0 for packet in container.demux(best_stream(container)))


def _promised_seconds(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # The container's duration covers its audio too, which may run on; only without audio does it speak for us.
    if container.duration and not container.streams.audio:
        return float(container.duration / 1_000_000)
    return 0.0


def _describe_first_frame(path: Path, times: NDArray[np.float64]) -> Probe | Rejection:
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = best_stream(container)
            frame = next(container.decode(stream), None)
            if frame is None:
                return Rejection(Reason.DECODE_ERROR, "no frame could be decoded")
            aspect = stream.sample_aspect_ratio
            return Probe(
                container=container.format.name,
                codec=stream.codec_context.name,
                coded_width=frame.width,
                coded_height=frame.height,
                rotation_deg=round(frame.rotation / 90) * 90 % 360,
                pixel_aspect=Fraction(aspect) if aspect else Fraction(1),
                times_s=times,
                video_streams=len(container.streams.video),
            )
    except MemoryError as error:
        raise MemoryError(_message(error)) from error
    except (av.FFmpegError, ValueError) as error:
        return Rejection(Reason.DECODE_ERROR, _message(error))


def _message(error: Exception) -> str:
    """The error without the path, which differs from machine to machine and stands in the row anyway."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
