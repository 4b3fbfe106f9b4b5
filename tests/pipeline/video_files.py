"""Small real video files for tests: each frame shows its own number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from faces.types import Image
from pipeline.decode.frames import CorruptFrame, Frame, decode
from pipeline.decode.probe import Probe, probe
from pipeline.rejection import Rejection

REPEATABLE = {"libx264": {"rc-lookahead": "0"}}
"""Options with which an encoder writes the same bytes every time: x264's macroblock tree, which looks ahead, reads
memory that nothing has written."""
NUMBER_STEP = 8
"""Grey levels between the frames of a video; far above what encoding changes."""


def numbered_frame(number: int, width: int, height: int) -> Image:
    """A grey of the frame's number, with a red top left and a blue bottom right corner to tell up from down."""
    image = np.full((height, width, 3), 20 + number * NUMBER_STEP % 216, np.uint8)
    side = min(width, height) // 3
    image[:side, :side] = (220, 20, 20)
    image[-side:, -side:] = (20, 20, 220)
    return image


def textured_frame(number: int, width: int, height: int) -> Image:
    """A smooth random pattern that moves by two pixels a frame and changes a little, as a face in a room does."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 16 + 12, width // 16 + 12, 3), np.uint8)
    pattern = cv2.resize(coarse, None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    x = number % 90  # then from the start again
    image = pattern[x : x + height, 2 * x : 2 * x + width].astype(int)
    return (image + rng.integers(-8, 9, image.shape) * (number % 3)).clip(0, 255).astype(np.uint8)


def number_of(image: Image) -> int:
    """The number that a frame shows, for the first 27 frames."""
    height, width = image.shape[:2]
    middle = image[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    return round((float(middle.mean()) - 20) / NUMBER_STEP)


def write_video(
    path: Path,
    frames: int = 24,
    size: tuple[int, int] = (96, 64),
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    times_s: Sequence[float] | None = None,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    audio: bool = False,
    texture: bool = False,
) -> Path:
    """Write numbered or textured frames at 25 a second, or at given times; returns `path`."""
    width, height = size
    with av.open(str(path), "w", format=container, options=muxer or {}) as file:
        stream = file.add_stream(codec, rate=25, options=REPEATABLE.get(codec, {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.thread_count = 1
        sound = file.add_stream("aac", rate=16000, layout="mono") if audio else None
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            image = (textured_frame if texture else numbered_frame)(number, width, height)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_s is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), round(times_s[number] * 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound is not None:
            _write_silence(file, sound, frames / 25)
    # SVT-AV1 gives the thread of a root process real-time priority, which would starve the machine.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """Write a file that holds nothing but silence; returns `path`."""
    with av.open(str(path), "w") as file:
        _write_silence(file, file.add_stream("aac", rate=16000, layout="mono"), seconds)
    return path


def _write_silence(file: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = np.zeros((1, 1024), np.float32)
    for start in range(0, int(seconds * 16000), 1024):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def turn(path: Path, quarters: int) -> Path:
    """Set the display matrix of an mp4 so that players turn it clockwise; returns `path`."""
    data = bytearray(path.read_bytes())
    # Version 0 of the track header: 4 bytes name, 4 of version and flags, 36 of times, number and layer.
    start = data.index(b"tkhd") + 4 + 4 + 36
    one = 1 << 16
    a, b = [(one, 0), (0, one), (-one, 0), (0, -one)][quarters % 4]
    data[start : start + 36] = np.array([a, b, 0, -b, a, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


def hide_first_frames(path: Path, seconds: float) -> Path:
    """Move the beginning of an mp4's edit list, as a cut without encoding does; returns `path`."""
    data = bytearray(path.read_bytes())
    timescale_at = data.index(b"mdhd") + 4 + 4 + 8
    timescale = int.from_bytes(data[timescale_at : timescale_at + 4], "big")
    # Version 0 of the edit list, one entry: name, version and flags, count, duration, start.
    start_at = data.index(b"elst") + 4 + 4 + 4 + 4
    start = int.from_bytes(data[start_at : start_at + 4], "big", signed=True) + round(seconds * timescale)
    data[start_at : start_at + 4] = start.to_bytes(4, "big")
    path.write_bytes(data)
    return path


DECODERS = ["decord", "pyav"]


def known(path: Path) -> Probe:
    found = probe(path)
    assert isinstance(found, Probe), found
    return found


def rejected(path: Path) -> Rejection:
    found = probe(path)
    assert isinstance(found, Rejection), found
    return found


def items(path: Path, decoder: str, indices: list[int] | None = None) -> list[Frame | CorruptFrame]:
    """Every frame of a file, or those at `indices`, sound and corrupt."""
    found = known(path)
    rows = np.arange(found.frames) if indices is None else np.array(indices)
    return list(decode(path, found, rows, decoder))


def decoded(path: Path, decoder: str, indices: list[int] | None = None) -> list[Frame]:
    """The same of a file in which no frame is corrupt."""
    frames = items(path, decoder, indices)
    corrupt = [frame.index for frame in frames if isinstance(frame, CorruptFrame)]
    assert not corrupt, f"corrupt: {corrupt}"
    return [frame for frame in frames if isinstance(frame, Frame)]


def corrupt_and_sound(path: Path, decoder: str) -> tuple[list[int], list[int]]:
    """Indices of the corrupt and of the sound frames."""
    frames = items(path, decoder)
    corrupt = [frame.index for frame in frames if isinstance(frame, CorruptFrame)]
    return corrupt, [frame.index for frame in frames if isinstance(frame, Frame)]


def damage(path: Path, start: float, share: float) -> Path:
    data = bytearray(path.read_bytes())
    first, count = int(len(data) * start), int(len(data) * share)
    data[first : first + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(data)
    return path


def cut_off(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path
