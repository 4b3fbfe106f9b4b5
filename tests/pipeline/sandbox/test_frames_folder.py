"""A directory of frames is a video: its planned frames are decoded in the sandbox, under their own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.plan import plan_frames
from pipeline.sandbox import DecodeFailed, SandboxedDecoder
from pipeline.sandbox.decoding import CorruptFrame, Frame
from pipeline.sandbox.frames_folder import FramesFolder, open_frames_folder
from shards.digests import directory_sha256
from shards.schema import Reason

RATE = 25.0


def picture(number: int) -> NDArray[np.uint8]:
    """A smooth picture that differs from frame to frame."""
    y, x = np.mgrid[0:96, 0:128]
    return np.stack([x + 4 * number, y + 2 * number, x + y], axis=-1).clip(0, 255).astype(np.uint8)


def frames_in(folder: Path, count: int = 25, suffix: str = ".png") -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"{number:08d}{suffix}", quality=95)
    return folder


def a_few(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    return plan_frames(times_s, per_second=6, most=400)


@contextmanager
def opened(decoder: SandboxedDecoder, folder: Path) -> Iterator[FramesFolder]:
    with open_frames_folder(decoder, folder, RATE, a_few, timeout_s=60) as video:
        yield video


@pytest.mark.parametrize(("suffix", "least_db"), [(".png", 99), (".jpg", 35), (".JPEG", 35)])
def test_planned_frames_are_those_of_the_files(
    decoder: SandboxedDecoder, tmp_path: Path, suffix: str, least_db: float
) -> None:
    folder = frames_in(tmp_path / "clip", suffix=suffix)
    with opened(decoder, folder) as video:
        found = video.probe()
        assert (found.container, found.frames, found.fps, found.shown_size) == ("frames", 25, RATE, (128, 96))
        planned = a_few(found.times_s)
        frames = list(video.frames(planned, "auto"))
        digest = video.sha256()
    assert [frame.index for frame in frames] == planned.tolist() == [0, 5, 10, 15, 20, 24]
    for frame in frames:
        assert isinstance(frame, Frame)
        assert frame.time_s == pytest.approx(frame.index / RATE)
        error = ((frame.image.astype(float) - picture(frame.index)) ** 2).mean()
        assert 10 * np.log10(255**2 / max(error, 1e-6)) > least_db
    assert digest == directory_sha256(folder)


def test_some_of_the_planned_frames_can_be_asked_for(decoder: SandboxedDecoder, tmp_path: Path) -> None:
    with opened(decoder, frames_in(tmp_path / "clip")) as video:
        assert [frame.index for frame in video.frames(np.array([5, 20]), "decord")] == [5, 20]


def test_a_damaged_frame_is_corrupt_and_costs_no_other(decoder: SandboxedDecoder, tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "clip")
    whole = (folder / "00000010.png").read_bytes()
    (folder / "00000010.png").write_bytes(whole[: len(whole) // 2])
    (folder / "00000015.png").write_bytes(b"no picture")
    with opened(decoder, folder) as video:
        frames = list(video.frames(a_few(video.probe().times_s), "auto"))
    sound = {frame.index: frame for frame in frames if isinstance(frame, Frame)}
    assert list(sound) == [0, 5, 20, 24]
    assert {frame.index for frame in frames if isinstance(frame, CorruptFrame)} == {10, 15}
    for index, frame in sound.items():
        assert np.array_equal(frame.image, picture(index))


def test_nothing_is_left_in_the_temporary_directory(
    decoder: SandboxedDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with opened(decoder, frames_in(tmp_path / "clip")) as video:
        video.probe()
        assert len(list(scratch.glob("*/*.mov"))) == 1
    assert list(scratch.glob("*/*.mov")) == []


@pytest.mark.parametrize(
    ("names", "reason", "detail"),
    [
        ([], Reason.EMPTY_FILE, "a directory without frames"),
        (["a.txt", ".b.png"], Reason.EMPTY_FILE, "a directory without frames"),
        (["a.webp"], Reason.UNSUPPORTED_CONTAINER, "frames as .webp; one of JPEG and PNG is read"),
        (
            ["a.jpg", "b.png"],
            Reason.UNSUPPORTED_CONTAINER,
            "frames as .jpg, .png; one of JPEG and PNG is read",
        ),
    ],
)
def test_a_directory_that_is_no_video_has_a_reason(
    decoder: SandboxedDecoder, tmp_path: Path, names: list[str], reason: Reason, detail: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DecodeFailed) as caught, opened(decoder, tmp_path):
        pass
    assert (caught.value.rejection.reason, caught.value.rejection.detail) == (reason, detail)


def test_a_directory_that_is_gone_has_a_reason(decoder: SandboxedDecoder, tmp_path: Path) -> None:
    with pytest.raises(DecodeFailed) as caught, opened(decoder, tmp_path / "gone"):
        pass
    assert caught.value.rejection.reason is Reason.INACCESSIBLE
