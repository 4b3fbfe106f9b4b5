"""Which frames are planned, and that both decoders give them as a player shows them."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import (
    DECODERS,
    decoded,
    known,
    number_of,
    numbered_frame,
    turn,
    write_video,
)

from pipeline.decode.frames import DecodeError, Frame, decode
from pipeline.decode.plan import frames_between, plan_frames
from pipeline.decode.pyav_frames import _Pass, pyav_frames


def test_the_end_of_one_pass_takes_no_frames_from_another(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", options={"bf": "3"})
    found = known(path)
    passes = [pyav_frames(path, found, range(24)) for _ in range(2)]
    first = [next(passes[0]) for _ in range(4)]
    second = [next(passes[1]) for _ in range(4)]
    passes[0].close()
    second += list(passes[1])
    assert [index for index, _ in first] == [0, 1, 2, 3]
    assert [index for index, image in second if image is not None] == list(range(24))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("a.mov", {"options": {"bf": "0", "g": "5"}}),
        ("a.ts", {}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("with sound.mp4", {"audio": True}),
        ("Ömer 顔 -%03d.mp4", {}),
        ("-rf.mp4", {}),
        (os.fsdecode(b"not utf-8 \xff.mp4"), {}),
        ("odd size.mp4", {"size": (333, 251), "pixels": "yuv444p"}),
    ],
)
def test_both_decoders_give_the_same_frames_in_display_order(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    suffix = Path(name).suffix
    path = write_video(tmp_path / f"made{suffix}", **options).rename(tmp_path / name)  # type: ignore[arg-type]
    by_decord, by_pyav = (decoded(path, decoder) for decoder in DECODERS)
    assert [number_of(frame.image) for frame in by_decord] == list(range(24))
    assert [frame.index for frame in by_pyav] == list(range(24))
    width, height = options.get("size", (96, 64))  # type: ignore[misc]
    for first, second in zip(by_decord, by_pyav, strict=True):
        assert first.image.shape == (height, width, 3)
        assert first.image.dtype == np.uint8
        assert first.image.flags.c_contiguous
        assert second.image.flags.c_contiguous
        np.testing.assert_allclose(first.image.astype(float), second.image, atol=3)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_metadata_is_applied_as_a_player_does(tmp_path: Path, decoder: str, quarters: int) -> None:
    path = turn(write_video(tmp_path / "a.mp4", 3, (96, 64)), quarters)
    shown = np.rot90(numbered_frame(0, 96, 64), -quarters)
    found = known(path)
    assert found.shown_size == (shown.shape[1], shown.shape[0])
    assert found.rotation_deg == -90 * quarters % 360
    image = decoded(path, decoder)[0].image
    assert image.shape == shown.shape
    assert np.abs(image.astype(float) - shown).mean() < 6


@pytest.mark.parametrize("decoder", DECODERS)
def test_rotation_and_pixel_shape_together(tmp_path: Path, decoder: str) -> None:
    path = turn(write_video(tmp_path / "a.mp4", 3, (96, 64), pixel_aspect=Fraction(4, 3)), 1)
    assert known(path).shown_size == (64, 128)
    assert decoded(path, decoder)[0].image.shape == (128, 64, 3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_the_planned_frames_are_given(tmp_path: Path, decoder: str) -> None:
    frames = decoded(write_video(tmp_path / "a.mp4"), decoder, [2, 3, 11, 23])
    assert [frame.index for frame in frames] == [2, 3, 11, 23]
    assert [number_of(frame.image) for frame in frames] == [2, 3, 11, 23]


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_that_the_file_no_longer_holds_are_corrupt(tmp_path: Path, decoder: str) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    longer = known(write_video(tmp_path / "b.mp4", 24))
    found = list(decode(path, longer, np.arange(24), decoder))
    assert [item.index for item in found] == list(range(24))
    assert [isinstance(item, Frame) for item in found] == [True] * 12 + [False] * 12


def test_a_file_that_has_vanished_since_is_a_decode_error(tmp_path: Path) -> None:
    found = known(write_video(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").unlink()
    for decoder in DECODERS:
        with pytest.raises(DecodeError):
            list(decode(tmp_path / "a.mp4", found, np.arange(3), decoder))


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"g": "20", "bf": "3"}),
        (".mp4", "libx264", {"g": "20", "bf": "3", "x264-params": "open-gop=1"}),
        (".mkv", "libx265", {"x265-params": "keyint=20:open-gop=1:log-level=none"}),
        (".webm", "libvpx-vp9", {"g": "20", "deadline": "realtime"}),
        (".mp4", "mpeg4", {"g": "20", "bf": "2"}),
        (".avi", "mpeg4", {"g": "20"}),
        (".ts", "libx264", {"g": "20", "bf": "3"}),
    ],
)
def test_a_part_of_a_file_is_the_same_frames_as_in_the_whole(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / f"long{suffix}", 200, codec=codec, options=options, texture=True)
    found = known(path)
    whole = dict(pyav_frames(path, found, range(found.frames)))
    for first in (55, 79, 80, 81, 120, 197):
        wanted = range(first, min(first + 30, found.frames), 3)
        part = list(pyav_frames(path, found, wanted))
        assert [index for index, _ in part] == list(wanted)
        for index, image in part:
            assert image is not None
            np.testing.assert_array_equal(image, whole[index])


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")]
)
def test_a_part_of_a_long_file_is_read_from_its_key_frame_on(
    tmp_path: Path, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / f"long{suffix}", 400, codec=codec, options={"g": "20"}, texture=True)
    found = known(path)
    read = []
    decode = _Pass._decode

    def counted(self: _Pass, *packet_and_more: Any) -> Any:
        read.append(1)
        return decode(self, *packet_and_more)

    monkeypatch.setattr(_Pass, "_decode", counted)
    assert len(list(pyav_frames(path, found, range(330, 340)))) == 10
    assert len(read) < 80


def without_list_of_key_frames(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"stss") == 1
    path.write_bytes(content.replace(b"stss", b"free"))


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"g": "50", "bf": "0", "x264-params": "intra-refresh=1"}, None),
        ({"g": "20"}, without_list_of_key_frames),
    ],
)
def test_where_a_key_frame_is_none_a_part_is_read_from_the_start(
    tmp_path: Path, options: dict[str, str], change: Callable[[Path], None] | None
) -> None:
    path = write_video(tmp_path / "odd.mp4", 300, options=options, texture=True)
    if change is not None:
        change(path)
    found = known(path)
    whole = dict(pyav_frames(path, found, range(300)))
    for first in (55, 120, 190, 220):
        for index, image in pyav_frames(path, found, range(first, first + 40)):
            assert image is not None
            np.testing.assert_array_equal(image, whole[index])


def test_damage_before_a_part_does_not_reach_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", 300, options={"g": "100", "bf": "0"}, texture=True)
    found = known(path)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    start, size = places[130]
    content[start + 12 : start + size] = bytes(size - 12)
    path.write_bytes(content)
    assert all(image is not None for _, image in pyav_frames(path, found, range(100, 130)))
    assert all(image is None for _, image in pyav_frames(path, found, range(140, 175)))
    assert all(image is not None for _, image in pyav_frames(path, found, range(200, 240)))


@pytest.mark.parametrize(
    ("span", "frames"),
    [
        ((0.0, 0.2), range(5)),
        ((0.04, 0.12), range(1, 3)),
        ((0.0402, 0.1198), range(1, 3)),
        ((9, 10), range(0)),
    ],
)
def test_a_span_holds_the_frames_that_are_first_shown_in_it(span: tuple[float, float], frames: range) -> None:
    found = frames_between(np.arange(20) / 25, *span)
    assert list(found) == list(frames)


def test_a_part_is_planned_like_a_file_of_its_own() -> None:
    times = np.arange(500) / 25
    part = plan_frames(times, 5, 400, range(100, 200))
    np.testing.assert_array_equal(part, 100 + plan_frames(times[:100], 5, 400))


def test_planned_frames_are_evenly_spaced_from_the_first_to_the_last() -> None:
    planned = plan_frames(np.arange(301) / 30, 6, 600)
    assert planned[0] == 0
    assert planned[-1] == 300
    assert len(planned) == 61
    assert set(np.diff(planned)) == {5}


def test_a_long_video_is_planned_more_sparsely_over_its_whole_length() -> None:
    planned = plan_frames(np.arange(30 * 600) / 30, 6, 100)
    assert len(planned) == 100
    assert planned[-1] == 30 * 600 - 1
    assert np.ptp(np.diff(planned)) <= 1


def test_a_video_slower_than_the_plan_is_looked_at_frame_by_frame() -> None:
    assert plan_frames(np.arange(20) / 5, 6, 600).tolist() == list(range(20))


def test_frames_are_spaced_in_time_and_not_in_number() -> None:
    times = np.concatenate([np.arange(100) / 100, 1 + np.arange(10) / 10])
    planned = plan_frames(times, 5, 600)
    assert np.diff(times[planned]) == pytest.approx(np.full(len(planned) - 1, 0.2), abs=0.11)
    assert 4 <= (times[planned] < 1).sum() <= 6


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=60).map(sorted),
    st.floats(0.1, 60),
    st.integers(8, 50),
)
def test_any_plan_is_ascending_in_range_and_within_the_limit(
    times: list[float], rate: float, most: int
) -> None:
    planned = plan_frames(np.array(times), rate, most)
    assert 1 <= len(planned) <= most
    assert (np.diff(planned) > 0).all()
    assert planned[0] >= 0
    assert planned[-1] < len(times)


@pytest.mark.clips
def test_both_decoders_give_the_same_frames_of_real_clips(clips: Path) -> None:
    for name in (
        "intel_book.mkv",
        "made_rot90_lp_d18.mp4",
        "mma_testavi.avi",
        "grid_brbk7n.mpg",
        "lp_d1.mp4",
    ):
        found = known(clips / name)
        planned = plan_frames(found.times_s, 2, 600)
        pairs = zip(*(decode(clips / name, found, planned, decoder) for decoder in DECODERS), strict=True)
        for first, second in pairs:
            assert np.abs(first.image.astype(float) - second.image).mean() < 1, name
