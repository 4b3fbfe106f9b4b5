"""Decodes the planned frames of a video, as a player shows them, and says which of them are corrupt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.picture import Image
from pipeline.decode.probe import Probe
from pipeline.decode.pyav_frames import DecodeError, pyav_frames

__all__ = ["CorruptFrame", "DecodeError", "Frame", "decode"]


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    index: int
    time_s: float
    image: Image
    """(height, width, 3) uint8 RGB as shown: rotation and pixel shape applied, contiguous."""


@dataclass(frozen=True)
class CorruptFrame:
    """A frame that is damaged, or predicted from a damaged one."""

    index: int
    time_s: float


def decode(
    path: str | Path, probe: Probe, indices: NDArray[np.int64], decoder: str
) -> Iterator[Frame | CorruptFrame]:
    """Decode the frames at `indices` in ascending order.

    Args:
        path: of the file; `/proc/self/fd/N` for one that is already open.
        probe: what is known of it.
        indices: ascending indices into `probe.times_s`.
        decoder: `auto`, `pyav` or `decord`.

    Raises:
        DecodeError: the file cannot be decoded at all.
        MachineFault: the share that the file is on is away.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    for index, image in pyav_frames(path, probe, indices.tolist()):
        time_s = float(probe.times_s[index])
        if image is None:
            yield CorruptFrame(index, time_s)
        else:
            yield Frame(index, time_s, as_shown(image, probe, turned=False))


def as_shown(image: Image, probe: Probe, turned: bool) -> Image:
    """Apply rotation and pixel shape.

    Args:
        image: (height, width, 3) as it is coded.
        probe: what is known of the video.
        turned: whether the rotation is applied already.
    """
    if not turned:
        image = np.rot90(image, probe.rotation_deg // 90)
    if probe.pixel_aspect != 1:
        import cv2

        image = cv2.resize(np.ascontiguousarray(image), probe.shown_size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)
