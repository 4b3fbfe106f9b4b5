"""Decode chosen frames of a video, one at a time, as a player would show them.

decord is the default; PyAV is the alternative for files that decord's older FFmpeg does not know, and reads the
containers that decord reads wrong. Both give the same frames: display order, rotation metadata and pixel shape
applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.types import Image
from pipeline.config import Frames
from pipeline.stages.probe import Probe, best_stream

DECORD_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})
"""What decord reads right. In MPEG streams it misses the first frames or fails at the end, because it cannot seek
back to the start; so containers without an index are always read with PyAV."""


class DecodeError(RuntimeError):
    """The decoder gave up; the message says where."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    index: int
    time_s: float
    image: Image


def plan_frames(times_s: NDArray[np.float64], config: Frames) -> NDArray[np.int64]:
    """Choose the frames to analyse: evenly spaced in time, at most `config.max_per_video`.

    Args:
        times_s: (frames,) presentation times, ascending.
        config: how many a second, and at most.

    Returns:
        Ascending indices into `times_s`.
    """
    span = float(times_s[-1] - times_s[0])
    wanted = min(int(span * config.per_second) + 1, config.max_per_video)
    if wanted >= len(times_s):
        return np.arange(len(times_s))
    ticks = times_s[0] + np.arange(wanted) * (span / max(wanted - 1, 1))
    return np.unique(np.searchsorted(times_s, ticks - 1e-6).clip(0, len(times_s) - 1))


def decode(path: Path, probe: Probe, indices: NDArray[np.int64], decoder: str) -> Iterator[Frame]:
    """Decode the frames at `indices` in ascending order.

    Raises:
        DecodeError: a frame that the file promises cannot be decoded.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    # Of several streams, decord's older FFmpeg may take another for the best.
    if probe.container not in DECORD_CONTAINERS or probe.video_streams > 1:
        decoder = "pyav"
    read = {"decord": _decord_frames, "pyav": _pyav_frames}[decoder]
    seen = 0
    for index, image in read(path, indices):
        seen += 1
        # decord applies rotation metadata by itself, PyAV leaves it to us.
        yield Frame(index, float(probe.times_s[index]), _as_shown(image, probe, turned=decoder == "decord"))
    if seen < len(indices):
        raise DecodeError(f"{seen} of {len(indices)} planned frames could be decoded")


def _decord_frames(path: Path, indices: NDArray[np.int64]) -> Iterator[tuple[int, Image]]:
    """Read every frame in order with `next`.

    decord's random access is one frame off behind the key frames of some HEVC files, and `skip_frames` can
    hang near the end of a file.
    """
    import decord

    try:
        with _utf8_name(path) as name:
            reader = decord.VideoReader(name, num_threads=1)
            wanted = set(indices.tolist())
            for index in range(int(indices[-1]) + 1):
                image = reader.next()
                if index in wanted:
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


def _decord_message(error: Exception, path: Path) -> str:
    """What failed, without decord's clock, source lines and stack and without the path, for a stable record."""
    lines = str(error).splitlines() or [type(error).__name__]
    text = (
        re.sub(r"^(\[[\d:]+\] \S+:\d+: )+", "", lines[0])
        .replace(f"[{path}]", "")
        .replace(str(path), "the file")
    )
    text = re.sub(r"/proc/self/fd/\d+", "the file", text)
    return f"decord: {text.strip()}"


def _pyav_frames(path: Path, indices: NDArray[np.int64]) -> Iterator[tuple[int, Image]]:
    import av

    wanted = iter(indices.tolist())
    target = next(wanted, None)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = best_stream(container)
            stream.thread_type = "NONE"
            for index, frame in enumerate(container.decode(stream)):
                if target is None:
                    return
                if index == target:
                    yield index, frame.to_ndarray(format="rgb24")
                    target = next(wanted, None)
    except MemoryError as error:
        raise MemoryError(str(error)) from error
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(f"pyav: {getattr(error, 'strerror', None) or error}") from error


def _as_shown(image: Image, probe: Probe, turned: bool) -> Image:
    if not turned:
        image = np.rot90(image, probe.rotation_deg // 90)
    if probe.pixel_aspect != 1:
        image = cv2.resize(np.ascontiguousarray(image), probe.shown_size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)
