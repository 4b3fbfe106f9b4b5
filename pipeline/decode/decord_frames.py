"""Decodes with decord where a pass of PyAV finds no damage.

decord does not report damage, so PyAV decodes the file first and checks
every frame. The cost is both decoders' time. PyAV alone decodes a file in which it finds damage, because
decord may count the frames of a damaged file differently.

decord guesses the container by itself and takes no allow-list. It only gets files whose first bytes are the
signature of a container that PyAV has identified; no playlist or script begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.decode.picture import Image
from pipeline.decode.probe import Probe
from pipeline.decode.pyav_frames import DecodeError

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
DECORD_CONTAINERS = frozenset({MOV, "matroska,webm", "avi"})
"""What decord reads right. In MPEG streams it misses the first frames or fails at the end, because it cannot seek
back to the start; so containers without an index are always read with PyAV."""
UNKNOWN_CODECS = frozenset({"av1", "libdav1d", "vvc"})
"""Codecs that are younger than decord's FFmpeg."""


def decord_reads(path: str | Path, probe: Probe) -> bool:
    """Whether decord may decode the file.

    Raises:
        DecodeError: the file cannot be opened.
    """
    # Of several streams, decord's older FFmpeg may take another for the best.
    if probe.video_streams > 1 or probe.codec in UNKNOWN_CODECS or probe.container not in DECORD_CONTAINERS:
        return False
    try:
        with Path(path).open("rb") as file:
            return _has_signature(file.read(12), probe.container)
    except OSError as error:
        raise DecodeError(f"decord: {error.strerror}") from error


def _has_signature(head: bytes, container: str) -> bool:
    if container == MOV:
        return head[4:8] in {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}
    if container == "avi":
        return head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return head[:4] == b"\x1a\x45\xdf\xa3"


def decord_frames(path: str | Path, wanted: Sequence[int]) -> Iterator[tuple[int, Image]]:
    """Read every frame in order, and give the wanted ones with their rotation applied.

    decord's random access is one frame off behind the key frames of some HEVC files, and `skip_frames` can hang
    near the end of a file.

    Args:
        path: of the file.
        wanted: ascending indices of frames in display order.

    Raises:
        DecodeError: decord gives up.
    """
    import decord

    try:
        with _utf8_name(Path(path)) as name:
            reader = decord.VideoReader(name, num_threads=1)
            chosen = set(wanted)
            for index in range(wanted[-1] + 1):
                image = reader.next()
                if index in chosen:
                    yield index, image.asnumpy()
    except StopIteration:
        return
    # decord asserts that a file it has opened holds frames.
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        raise DecodeError(_decord_message(error, path)) from error


@contextmanager
def _utf8_name(path: Path) -> Iterator[str]:
    """A name of the file that is UTF-8, which is all that decord takes."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield str(path)


def _decord_message(error: Exception, path: str | Path) -> str:
    """The failure, without decord's clock, source lines, stack and path, so that the record is stable."""
    lines = str(error).splitlines() or [type(error).__name__]
    text = (
        re.sub(r"^(\[[\d:]+\] \S+:\d+: )+", "", lines[0])
        .replace(f"[{path}]", "")
        .replace(str(path), "the file")
    )
    text = re.sub(r"/proc/self/fd/\d+", "the file", text)
    return f"decord: {text.strip()}"
