"""A video gives the same bytes inside the sandbox as outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from sandboxed_videos import TIMEOUT_S, failure_of, write_clip

from pipeline.decode.frames import CorruptFrame, DecodeError, Frame, decode
from pipeline.decode.probe import Probe, probe
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed, Enforced, SandboxedDecoder
from shards.schema import Reason


def digests(frames: Iterable[Frame | CorruptFrame]) -> list[tuple[int, float, str]]:
    """Index, time and pixels of each frame."""
    return [
        (frame.index, frame.time_s, pixels_of(frame.image) if isinstance(frame, Frame) else "corrupt")
        for frame in frames
    ]


def pixels_of(image: np.ndarray) -> str:
    return f"{image.shape} {image.dtype} {hashlib.sha256(image.tobytes()).hexdigest()}"


def outside(path: Path) -> object:
    found = probe(path)
    if isinstance(found, Rejection):
        return found
    indices = np.arange(found.frames)
    try:
        return facts(found), digests(decode(path, found, indices, "pyav"))
    except DecodeError as error:
        return Rejection(Reason.DECODE_ERROR, str(error))


def inside(decoder: SandboxedDecoder, path: Path) -> object:
    try:
        with decoder.open(path, TIMEOUT_S) as video:
            found = video.probe()
            return facts(found), digests(video.frames(np.arange(found.frames), "pyav"))
    except DecodeFailed as failed:
        return failed.rejection


def facts(found: Probe) -> dict[str, object]:
    return {**vars(found), "times_s": found.times_s.tolist()}


@pytest.mark.parametrize("size", [(96, 64), (64, 256)])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx264", ".mp4"),
        ("libx265", ".mkv"),
        ("libsvtav1", ".mp4"),
        ("libvpx", ".webm"),
        ("libvpx-vp9", ".webm"),
        ("mpeg4", ".avi"),
        ("mpeg2video", ".mpg"),
    ],
)
def test_frames_are_the_same(
    decoder: SandboxedDecoder, tmp_path: Path, codec: str, suffix: str, size: tuple[int, int]
) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", codec=codec, size=size)
    assert inside(decoder, clip) == outside(clip)


@pytest.mark.clips
@pytest.mark.slow
def test_all_clips_give_the_same_bytes(decoder: SandboxedDecoder, clips: Path) -> None:
    paths = [path for path in sorted(clips.iterdir()) if path.suffix != ".tsv" and path.is_file()]
    assert paths
    different = [path.name for path in paths if inside(decoder, path) != outside(path)]
    assert different == []


def test_chosen_frames_come_alone_and_a_second_choice_is_possible(
    decoder: SandboxedDecoder, clip: Path
) -> None:
    found = probe(clip)
    assert isinstance(found, Probe)
    with decoder.open(clip, TIMEOUT_S) as video:
        for chosen in ([3, 7, 20], [0], [], [5, 6, 7, 8, 9, 10, 29]):
            indices = np.array(chosen, dtype=np.int64)
            assert digests(video.frames(indices, "pyav")) == digests(decode(clip, found, indices, "pyav"))


def test_frames_may_be_left_before_their_end(decoder: SandboxedDecoder, clip: Path) -> None:
    with decoder.open(clip, TIMEOUT_S) as video:
        for _ in range(2):
            frames = video.frames(np.arange(30), "pyav")
            assert next(frames).index == 0
            frames.close()  # type: ignore[attr-defined]


def test_a_frame_larger_than_the_limit_is_rejected(tmp_path: Path) -> None:
    small = SandboxedDecoder(frame_pixels=64 * 64)
    try:
        rejection = failure_of(small, write_clip(tmp_path / "clip.mp4"))
    finally:
        small.close()
    assert rejection.detail == "96 x 64 pixels; at most 4096 are decoded"


def test_the_missing_enforcement_is_listed() -> None:
    assert Enforced(landlock_abi=7, seccomp=True).missing == []
    assert Enforced(landlock_abi=0, seccomp=True).missing == [
        "Landlock (a decoder can read every file that this user can read)"
    ]
    assert len(Enforced(landlock_abi=3, seccomp=False).missing) == 2


def test_required_is_given_where_the_kernel_has_it(decoder: SandboxedDecoder, clip: Path) -> None:
    if decoder.enforced.missing:
        with pytest.raises(RuntimeError, match=r"run\.sandbox=required, but this machine lacks"):
            SandboxedDecoder(mode="required")
        return
    made = SandboxedDecoder(mode="required")
    made.close()
    assert made.enforced == decoder.enforced


def test_frame_times_without_measure_are_the_files_fault_and_no_attack(
    decoder: SandboxedDecoder, tmp_path: Path
) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + (number // 20) * 25 * 3600 * 200, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    rejection = failure_of(decoder, path)
    assert rejection.reason is Reason.UNREADABLE
    assert rejection.detail == "its last frame is at 720001 s; at most 360000 s are read"
