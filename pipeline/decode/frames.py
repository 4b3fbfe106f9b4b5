"""Decodes the planned frames of a video, as a player shows them, and marks the corrupt ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.decord_frames import decord_frames, decord_reads
from pipeline.decode.picture import Image
from pipeline.decode.probe import Probe
from pipeline.decode.pyav_frames import LEAST_SEEK_S, DecodeError, pyav_frames

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
        probe: facts about the file.
        indices: ascending indices into `probe.times_s`.
        decoder: `pyav`; `decord`, where it can read the file and PyAV finds no damage in it, else PyAV; `auto`
            is PyAV, which reads every container and codec that is let in.

    Raises:
        DecodeError: the file cannot be decoded at all.
        MachineFault: the storage is lost.
        MemoryError: FFmpeg could not get the memory that the file asks for.
    """
    wanted = indices.tolist()
    if not wanted:
        return
    # A part of a long file is PyAV's: decord would read everything before it, and no damage there may count.
    whole = probe.times_s[wanted[0]] < LEAST_SEEK_S
    if decoder == "decord" and whole and decord_reads(path, probe):
        verdicts = list(pyav_frames(path, probe, range(wanted[-1] + 1), pixels=False))
        # A frame that is corrupt, or shows nothing, would make the frame numbers of the two decoders differ.
        if len(verdicts) == wanted[-1] + 1 and all(image is not None for _, image in verdicts):
            yield from _by_decord(path, probe, wanted)
            return
    for index, image in pyav_frames(path, probe, wanted):
        time_s = float(probe.times_s[index])
        if image is None:
            yield CorruptFrame(index, time_s)
        else:
            yield Frame(index, time_s, as_shown(image, probe, turned=False))


def _by_decord(path: str | Path, probe: Probe, wanted: list[int]) -> Iterator[Frame]:
    seen = 0
    for index, image in decord_frames(path, wanted):
        seen += 1
        # decord applies rotation metadata by itself, PyAV does not.
        yield Frame(index, float(probe.times_s[index]), as_shown(image, probe, turned=True))
    if seen < len(wanted):
        raise DecodeError(f"decord: {seen} of {len(wanted)} planned frames could be decoded")


def as_shown(image: Image, probe: Probe, turned: bool) -> Image:
    """Apply rotation and pixel shape.

    Args:
        image: (height, width, 3) as it is coded.
        probe: facts about the video.
        turned: whether the rotation is applied already.
    """
    if not turned:
        image = np.rot90(image, probe.rotation_deg // 90)
    if probe.pixel_aspect != 1:
        import cv2

        image = cv2.resize(np.ascontiguousarray(image), probe.shown_size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)
