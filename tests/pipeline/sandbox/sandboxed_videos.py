"""Small videos, and "videos" that name an attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.decode.frames import CorruptFrame, Frame
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed, SandboxedDecoder

TIMEOUT_S = 100.0
"""Far above what any test needs, so that a crowded machine fails none."""
Attack = Callable[..., Rejection]


def write_attack(folder: Path, name: str, argument: object = "") -> Path:
    """A file that makes the hostile decoder attack."""
    path = folder / "evil.mp4"
    path.write_text(f"{name}\n{argument}", encoding="utf-8")
    return path


def attack_with(
    decoder: SandboxedDecoder, folder: Path, name: str, argument: object = "", timeout_s: float = TIMEOUT_S
) -> Rejection:
    """Run an attack in place of a decoder, ask for all frames, and give what the video failed with."""
    return failure_of(decoder, write_attack(folder, name, argument), timeout_s)


def failure_of(decoder: SandboxedDecoder, path: Path, timeout_s: float = TIMEOUT_S) -> Rejection:
    """What a video fails with when all of its frames are asked for."""
    with pytest.raises(DecodeFailed) as failed:
        decode_all(decoder, path, timeout_s)
    return failed.value.rejection


def decode_all(
    decoder: SandboxedDecoder, path: Path, timeout_s: float = TIMEOUT_S
) -> list[Frame | CorruptFrame]:
    """All frames of a video."""
    with decoder.open(path, timeout_s) as video:
        return list(video.frames(np.arange(video.probe().frames), "pyav"))


def write_clip(
    path: Path, frames: int = 30, size: tuple[int, int] = (96, 64), codec: str = "libx264"
) -> Path:
    """Write a video of moving noise at 25 frames a second."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(frames):
            image = np.ascontiguousarray(np.roll(noise, 3 * number, axis=1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return path
