"""Bytes that no encoder writes."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from video_files import corrupt_and_sound, write_video

from pipeline.decode.bitstream import (
    intact_check,
    is_h264_slice,
    no_escapes_missing,
    no_long_run,
    units_intact,
)

SLICE = b"\x41"


def unit(payload: bytes) -> bytes:
    return len(SLICE + payload).to_bytes(4, "big") + SLICE + payload


@pytest.mark.parametrize("escape", [b"\x00\x00\x00", b"\x00\x00\x01", b"\x00\x00\x02"])
def test_a_slice_never_holds_what_must_be_escaped(escape: bytes) -> None:
    assert units_intact(unit(b"abc") + unit(b"\x00\x00\x03\x01x"), 4, is_h264_slice)
    assert not units_intact(unit(b"abc") + unit(b"a" + escape + b"x"), 4, is_h264_slice)


def test_zeros_behind_a_unit_and_units_that_hold_no_picture_are_let_be() -> None:
    assert units_intact(unit(b"abc\x00\x00\x00\x00"), 4, is_h264_slice)
    information = b"\x06a\x00\x00\x00b"
    assert units_intact(len(information).to_bytes(4, "big") + information, 4, is_h264_slice)


def test_a_length_beyond_the_packet_is_damage() -> None:
    assert not units_intact(unit(b"abc")[:-1], 4, is_h264_slice)


def test_between_start_codes_zeros_lead_to_the_next_start_code_only() -> None:
    assert no_escapes_missing(b"\x00\x00\x00\x01\x41abc\x00\x00\x00\x00\x01\x41abc\x00\x00\x00")
    assert not no_escapes_missing(b"\x00\x00\x00\x01\x41abc\x00\x00\x00\x00def")
    assert not no_escapes_missing(b"\x00\x00\x00\x01\x41abc\x00\x00\x02def")


def test_arithmetic_coding_holds_no_long_run_of_zeros() -> None:
    assert no_long_run(b"a" + bytes(63) + b"b")
    assert not no_long_run(b"a" + bytes(64) + b"b")


def test_codecs_in_which_every_byte_may_stand_have_no_check() -> None:
    for codec in ("mpeg4", "mpeg2video", "av1", "mjpeg"):
        assert intact_check(codec, None) is None


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.mkv", "libx265"), ("a.webm", "libvpx")]
)
def test_a_block_of_zeros_within_a_packet_is_damage(tmp_path: Path, name: str, codec: str) -> None:
    if codec == "libx265":
        options = {"x265-params": "log-level=none:bframes=0:keyint=8", "crf": "4"}
    elif codec == "libvpx":
        options = {"g": "8", "b": "4M", "lag-in-frames": "0"}
    else:
        options = {"crf": "4", "g": "8", "bf": "0"}
    path = write_video(tmp_path / name, 24, (160, 128), codec=codec, options=options, texture=True)
    with av.open(str(path)) as file:
        packet = [p for p in file.demux(video=0) if p.size][10]
        start = path.read_bytes().index(
            bytes(packet)[-600:-300] if name != "a.ts" else bytes(packet)[-600:-500]
        )
    data = bytearray(path.read_bytes())
    data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    corrupt, sound = corrupt_and_sound(path, "pyav")
    assert corrupt[0] == 10
    assert sorted(corrupt + sound) == list(range(24))
    # libvpx may set a key frame earlier than it is told to.
    assert codec == "libvpx" or corrupt == list(range(10, 16))
