"""Opens a video file, and only a video file: demuxers and protocols come from an allow-list.

FFmpeg guesses what a file is from its content, whatever its name. Among what it guesses are playlists and scripts
that name other files (concat, HLS, DASH, SDP, image sequences) and formats that are not videos (fonts,
subtitles, pictures). FFmpeg itself enforces the allow-list, before the demuxer reads anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.decode.strict import listening

if TYPE_CHECKING:
    import av

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpeg",
    "mpegts",
    "flv",
    "live_flv",
    "asf",
    "ogg",
    "mpegvideo",
    "m4v",
    "h264",
    "hevc",
    "ivf",
    "dv",
    "mxf",
)
"""Containers and raw streams that hold video and name no other file, by FFmpeg's names."""
STILL_DEMUXERS = ("gif", "apng", "image2", "webp_anim", "_pipe")
"""Parts of the names of demuxers for pictures: a better reason than that the container is not allowed."""

FIRST_BOXES = frozenset({b"ftyp", b"wide", b"mdat", b"free", b"skip"})
"""Types of box that an mp4 or mov file begins with, besides its index."""


class NotAllowed(ValueError):  # noqa: N818 - states a property of a file, not a fault
    """The content of the file belongs to a demuxer outside of the allow-list.

    Args:
        demuxer: FFmpeg's name of it.
    """

    def __init__(self, demuxer: str) -> None:
        super().__init__(f"container {demuxer} is not allowed")
        self.demuxer = demuxer


class NoIndex(ValueError):  # noqa: N818 - states a property of a file, not a fault
    """An mp4 or mov file without a moov box, which is written last: the recording or the copy was cut off."""


def open_container(path: str | Path, **options: str) -> av.container.InputContainer:
    """Open a file for reading.

    Args:
        path: of a regular file; `/proc/self/fd/N` for one that is already open.
        **options: of FFmpeg's demuxer.

    Raises:
        NotAllowed: the content is not that of an allowed container.
        NoIndex: the end of an mp4 file, with the index of its frames, is missing.
        av.FFmpegError: FFmpeg cannot read it.
    """
    import av

    allowed = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}
    # An absolute path is never read as the name of a protocol.
    name = str(Path(path).absolute())
    with listening() as messages:
        try:
            return av.open(name, options=allowed | options, metadata_errors="replace")
        except av.ArgumentError as error:
            denied = [demuxer for _, demuxer, text in messages if "whitelist" in text]
            if denied:
                raise NotAllowed(denied[0]) from error
            raise
        except av.InvalidDataError as error:
            # FFmpeg looks for it in any file with such a name.
            if any("moov atom not found" in text for _, _, text in messages) and _begins_as_mp4(name):
                raise NoIndex("the file ends before its index of frames (the moov box)") from error
            raise


def _begins_as_mp4(path: str) -> bool:
    """Whether the first box is one that mp4 and mov files begin with."""
    with Path(path).open("rb") as file:
        return file.read(8)[4:] in FIRST_BOXES


def best_stream(container: Any) -> Any:
    """The video stream that players show; None when there is none."""
    return container.streams.best("video")


def message_of(error: BaseException) -> str:
    """The error without the path, which differs from machine to machine and is in the row already."""
    text = str(getattr(error, "strerror", None) or error)
    return text.splitlines()[0] if text else type(error).__name__
