"""Block edges that appear on the grid of the codec are damage; edges that pictures have by themselves are not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from video_files import corrupt_and_sound, write_video

from pipeline.decode.blocking import BlockingCheck, luma_of

WIDTH, HEIGHT = 320, 240


def scene(seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with some texture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    smooth = 120 + 60 * np.sin(columns / 37 + seed) * np.cos(rows / 29)
    return (smooth + rng.normal(0, 2, smooth.shape)).clip(0, 255).astype(np.uint8)


def mosaic(picture: NDArray[np.uint8], shift: int = 0) -> NDArray[np.uint8]:
    """The picture with squares of other brightness in its lower half, as a decoder makes them of damaged data."""
    rng = np.random.default_rng(1)
    out = picture.copy()
    for top in range(HEIGHT // 2 + shift, HEIGHT - 16, 16):
        for left in range(shift, WIDTH - 16, 16):
            out[top : top + 16, left : left + 16] = rng.integers(0, 256)
    return out


def framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture between black bars, whose borders lie on the grid."""
    out = picture.copy()
    out[:32] = out[-32:] = 0
    out[:, :40] = out[:, -40:] = 0
    return out


def verdicts(*pictures: NDArray[np.uint8], pixels: str = "yuv420p") -> list[bool]:
    check = BlockingCheck()
    frames = [
        av.VideoFrame.from_ndarray(picture, format="gray").reformat(format=pixels) for picture in pictures
    ]
    return [check.is_damaged(frame) for frame in frames]


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuvj444p"])
def test_a_mosaic_on_the_grid_is_damage_where_it_appears(pixels: str) -> None:
    damaged = mosaic(scene())
    assert verdicts(scene(), damaged, damaged, scene(), pixels=pixels) == [False, True, False, False]


def test_a_first_frame_is_judged_by_itself() -> None:
    assert verdicts(mosaic(scene())) == [True]


def test_edges_beside_the_grid_are_part_of_the_picture() -> None:
    assert verdicts(scene(), mosaic(scene(), shift=3)) == [False, False]


def test_black_bars_on_the_grid_are_part_of_the_picture() -> None:
    assert verdicts(framed(scene()), framed(scene(1))) == [False, False]
    assert verdicts(scene(), framed(scene())) == [False, False]


def test_another_scene_or_size_is_no_damage() -> None:
    small = np.ascontiguousarray(scene(3)[:120, :160])
    assert verdicts(scene(), scene(5), small, np.zeros_like(small), scene()) == [False] * 5


def test_luma_has_no_padding() -> None:
    picture = np.ascontiguousarray(scene()[:90, :70])
    frame = av.VideoFrame.from_ndarray(picture, format="gray")
    np.testing.assert_array_equal(luma_of(frame), picture)


@pytest.mark.parametrize("quality", [24, 34, 44])
def test_a_coarsely_coded_video_loses_nothing(tmp_path: Path, quality: int) -> None:
    options = {"crf": str(quality), "x265-params": "keyint=20:log-level=none"}
    path = write_video(tmp_path / "a.mp4", 40, (320, 240), codec="libx265", options=options, texture=True)
    corrupt, sound = corrupt_and_sound(path, "pyav")
    assert (corrupt, len(sound)) == ([], 40)
