"""Decode chosen frames of a video, one at a time, as a player would show them.

decord is the default; PyAV is the alternative for files that decord's older FFmpeg does not know. Both give
the same frames: display order, rotation metadata and pixel shape applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.types import Image
from pipeline.config import Frames
from pipeline.stages.probe import Probe


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
    """
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
        reader = decord.VideoReader(str(path), num_threads=1)
        wanted = set(indices.tolist())
        for index in range(int(indices[-1]) + 1):
            image = reader.next()
            if index in wanted:
                yield index, image.asnumpy()
    except StopIteration:
        return
    except (decord.DECORDError, RuntimeError) as error:
        raise DecodeError(_decord_message(error)) from error


def _decord_message(error: Exception) -> str:
    """The line that says what failed, without decord's clock, build paths and stack."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"decord: {line.rpartition('Error: ')[2] or line}"


def _pyav_frames(path: Path, indices: NDArray[np.int64]) -> Iterator[tuple[int, Image]]:
    import av

    wanted = iter(indices.tolist())
    target = next(wanted, None)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for index, frame in enumerate(container.decode(stream)):
                if target is None:
                    return
                if index == target:
                    yield index, frame.to_ndarray(format="rgb24")
                    target = next(wanted, None)
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(f"pyav: {getattr(error, 'strerror', None) or error}") from error


def _as_shown(image: Image, probe: Probe, turned: bool) -> Image:
    if not turned:
        image = np.rot90(image, probe.rotation_deg // 90)
    if probe.pixel_aspect != 1:
        image = cv2.resize(np.ascontiguousarray(image), probe.shown_size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)
