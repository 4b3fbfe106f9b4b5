"""First look at a video file: whether it is a video, whether it is whole, and when each frame is shown.

The whole file is demultiplexed (not decoded) with PyAV. That costs a read that decoding needs anyway, finds
truncated files whose header promises more than is there, and gives every frame's true time, which variable frame
rates make different from index / fps.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.container import (
    STILL_DEMUXERS,
    NoIndex,
    NotAllowed,
    best_stream,
    message_of,
    open_container,
)
from pipeline.decode.strict import listening
from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from shards.schema import Reason

LOST_SHARE = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN})
"""Errors of a network file system whose server is lost."""
COMPLETE = 0.95
"""Least fraction of the promised frames or seconds that must exist; edit lists and rounding cost a few."""
GUESSED_TIMES = frozenset({"avi"})
"""Containers that store only the order of decoding: FFmpeg guesses their presentation times."""
FIRST_LOOK = 250
"""Most packets to decode in search of an intact key frame, which gives the size and colours of the video."""
COLOR_TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
"""Names of FFmpeg for the transfer functions of ITU-T H.273; all others are unspecified."""
HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
"""Transfer functions of high dynamic range: read as if they were BT.709, their colours are washed out."""
MOST_PIXEL_ASPECT = 4
"""Pixels of real video are at most about twice as wide or as high; beyond this the header is damaged."""
NOT_FILES = {
    stat.S_IFDIR: "a directory is not a file",
    stat.S_IFIFO: "a named pipe is not a file",
    stat.S_IFSOCK: "a socket is not a file",
    stat.S_IFCHR: "a device is not a file",
    stat.S_IFBLK: "a device is not a file",
}


@dataclass(frozen=True)
class Probe:
    """Facts about a video before its frames are decoded."""

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
    color_transfer: str = "unspecified"
    """FFmpeg's name of the transfer function."""
    start_s: float | None = None
    """Time of the first frame by the container's clock; None where a packet's time does not name its frame."""
    late_s: float = 0.0
    """Seconds from the start of the file, which may be that of its sound, to the first frame."""

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


def probe(path: str | Path) -> Probe | Rejection:
    """Look at a video file without decoding more than its first frame.

    Args:
        path: of the file; `/proc/self/fd/N` for one that is already open.

    Raises:
        MachineFault: the directory of the file is gone: lost storage would fail all its videos.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    import av

    path = Path(path)
    unfit = _not_a_file(path)
    if unfit is not None:
        return unfit
    try:
        with listening():
            return _look_at(path)
    except MemoryError as error:
        raise MemoryError(message_of(error)) from error
    except NotAllowed as error:
        still = any(name in error.demuxer for name in STILL_DEMUXERS)
        if still:
            return Rejection(Reason.STILL_IMAGE, f"container {error.demuxer}")
        return Rejection(Reason.UNSUPPORTED_CONTAINER, str(error))
    except NoIndex as error:
        return Rejection(Reason.TRUNCATED_FILE, str(error))
    except (av.FFmpegError, ValueError) as error:
        if is_lost_share(error):
            raise lost_share(error) from error
        return Rejection(Reason.UNREADABLE, message_of(error))


def is_lost_share(error: BaseException) -> bool:
    """Whether the machine, not the file, causes the error."""
    return getattr(error, "errno", None) in LOST_SHARE


def lost_share(error: BaseException, path: Path | None = None) -> MachineFault:
    """The error for lost storage."""
    return MachineFault(
        f"{path or 'The video'} cannot be reached ({message_of(error)}). Check that the source is mounted on "
        "every node; the same command again continues. If only single files cannot be read, leave them out with "
        "source.exclude"
    )


def _not_a_file(path: Path) -> Rejection | None:
    try:
        facts = path.stat()
        kind = stat.S_IFMT(facts.st_mode)
        if kind != stat.S_IFREG:
            return Rejection(Reason.NOT_A_REGULAR_FILE, NOT_FILES.get(kind, "not a regular file"))
        if facts.st_size == 0:
            return Rejection(Reason.EMPTY_FILE, "0 bytes")
        with path.open("rb"):
            return None
    except OSError as error:
        if is_lost_share(error) or not path.parent.is_dir():
            raise lost_share(error, path) from error
        return Rejection(Reason.INACCESSIBLE, error.strerror)


def _look_at(path: Path) -> Probe | Rejection:
    index = _read_index(path)
    if isinstance(index, Rejection):
        return index
    found = _describe(path, index)
    if isinstance(found, Rejection):
        return found
    if found.duration_s < COMPLETE * index.promised_s - 1.0:
        return Rejection(
            Reason.TRUNCATED_FILE, f"{found.duration_s:.1f} of {index.promised_s:.1f} seconds are in the file"
        )
    if found.color_transfer in HDR:
        name = HDR[found.color_transfer]
        return Rejection(
            Reason.HDR_VIDEO, f"transfer function {found.color_transfer} ({name}); only SDR is read"
        )
    return found


@dataclass(frozen=True)
class _Index:
    """The results of demultiplexing; a promise is 0 where the file makes none."""

    times_s: NDArray[np.float64]
    start_s: float | None
    late_s: float
    promised_s: float


def _read_index(path: Path) -> _Index | Rejection:
    with open_container(path) as container:
        stream: Any = best_stream(container)
        if stream is None:
            kinds = sorted({stream.type for stream in container.streams})
            return Rejection(Reason.NO_VIDEO_STREAM, f"streams: {', '.join(kinds) or 'none'}")
        if stream.disposition & stream.disposition.attached_pic:
            return Rejection(Reason.NO_VIDEO_STREAM, "the only picture is the cover of an audio file")
        packets, times, start = _packets(container, stream)
        promised_frames, promised_s = stream.frames, _promised_seconds(container, stream)
        file_start_s = None if container.start_time is None else container.start_time / 1_000_000
    if len(times) == 0:
        return Rejection(Reason.UNREADABLE, "the video stream holds no frames")
    if packets < COMPLETE * promised_frames:
        packets = _packets_without_edits(path)
    if packets < COMPLETE * promised_frames:
        return Rejection(Reason.TRUNCATED_FILE, f"{packets} of {promised_frames} frames are in the file")
    late_s = 0.0 if start is None or file_start_s is None else max(0.0, start - file_start_s)
    return _Index(times, start, late_s, promised_s)


def _packets(container: Any, stream: Any) -> tuple[int, NDArray[np.float64], float | None]:
    """Number of coded frames; times of those that are shown (an edit list may hide some); `Probe.start_s`."""
    import av

    count = 0
    stamps: list[int | None] = []
    shown_times = container.format.name not in GUESSED_TIMES
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError) or is_lost_share(error) or count == 0:
                raise
            # The demuxer gives up in the middle: the packets so far count.
            break
        if packet is None:
            break
        if packet.size:
            count += 1
            if not packet.is_discard:
                shown_times = shown_times and packet.pts is not None
                stamps.append(packet.pts if packet.pts is not None else packet.dts)
    if any(stamp is None for stamp in stamps):
        # Raw streams carry no times: the frame rate gives them.
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        return count, np.arange(len(stamps)) / rate, None
    if not stamps:
        return count, np.zeros(0), None
    seconds = np.sort(np.array(stamps, dtype=np.float64)) * float(stream.time_base)
    start = float(seconds[0])
    return count, seconds - start, start if shown_times else None


def _packets_without_edits(path: Path) -> int:
    """Number of coded frames, with those that an edit list cuts away: they are hidden, not missing."""
    with open_container(path, ignore_editlist="1") as container:
        return sum(packet.size > 0 for packet in container.demux(best_stream(container)))


def _promised_seconds(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # The container's duration covers its audio too, which may run on. It is the video's only without audio.
    if container.duration and not container.streams.audio:
        return float(container.duration / 1_000_000)
    return 0.0


def _describe(path: Path, index: _Index) -> Probe | Rejection:
    with open_container(path) as container:
        stream: Any = best_stream(container)
        frame, message = _first_frame(container, stream)
        if frame is None:
            return Rejection(Reason.DECODE_ERROR, message or "no frame could be decoded")
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if not 1 / MOST_PIXEL_ASPECT <= aspect <= MOST_PIXEL_ASPECT:
            return Rejection(Reason.UNREADABLE, f"a pixel aspect ratio of {aspect} is not plausible")
        return Probe(
            container=container.format.name,
            codec=stream.codec_context.name,
            coded_width=frame.width,
            coded_height=frame.height,
            rotation_deg=round(frame.rotation / 90) * 90 % 360,
            pixel_aspect=aspect,
            times_s=index.times_s,
            video_streams=len(container.streams.video),
            color_transfer=COLOR_TRANSFERS.get(int(frame.color_trc), "unspecified"),
            start_s=index.start_s,
            late_s=index.late_s,
        )


def _first_frame(container: Any, stream: Any) -> tuple[Any, str | None]:
    """The first intact key frame, or else the first frame at all; and the first error on the way to it."""
    import av

    if stream.codec_context is None:
        return None, "FFmpeg has no decoder for the codec"
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1  # dav1d and libvpx start threads whatever the type
    first, message = None, None
    packets = container.demux(stream)
    for _ in range(FIRST_LOOK):
        try:
            packet = next(packets, None)
            frames = [] if packet is None else stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError) or is_lost_share(error):
                raise
            message = message or message_of(error)
            continue
        for frame in frames:
            if frame.key_frame and not frame.is_corrupt:
                return frame, message
            first = first or frame
        if packet is None or not packet.size:
            break
    return first, message
