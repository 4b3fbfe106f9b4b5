"""What the probe finds in a video file before its frames are decoded, on files of every sort."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from video_files import (
    DECODERS,
    cut_off,
    decoded,
    hide_first_frames,
    known,
    number_of,
    numbered_frame,
    rejected,
    write_audio,
    write_video,
)

from pipeline.decode.frames import decode
from pipeline.decode.probe import Probe, probe
from pipeline.rejection import Rejection
from shards.schema import Reason


def test_a_picture_that_begins_after_the_sound_is_late(tmp_path: Path) -> None:
    silent, sound, late = (tmp_path / f"{name}.mp4" for name in ("silent", "sound", "late"))
    write_video(silent, 50, options={"bf": "0"})
    write_audio(sound, 3.0)
    with (
        av.open(str(silent)) as pictures,
        av.open(str(sound)) as sounds,
        av.open(str(late), "w") as file,
    ):
        parts = [(part, file.add_stream_from_template(part.streams[0])) for part in (sounds, pictures)]
        for (part, copy), delay_s in zip(parts, (0, 2), strict=True):
            for packet in part.demux(part.streams[0]):
                if packet.pts is not None and packet.dts is not None and packet.size:
                    shift = round(delay_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copy
                    file.mux(packet)
    assert known(silent).late_s == 0
    found = known(late)
    assert found.late_s == pytest.approx(2.0, abs=0.1)
    assert found.times_s[0] == 0


def test_a_video_is_described(tmp_path: Path) -> None:
    found = known(write_video(tmp_path / "a.mp4", 24, (96, 64)))
    assert (found.codec, found.frames, found.shown_size, found.rotation_deg) == ("h264", 24, (96, 64), 0)
    assert "mp4" in found.container
    assert found.fps == pytest.approx(25)
    assert found.duration_s == pytest.approx(0.96)
    np.testing.assert_allclose(found.times_s, np.arange(24) / 25, atol=1e-6)


def test_a_variable_frame_rate_gives_every_frame_its_true_time(tmp_path: Path) -> None:
    times = np.cumsum([0.04, 0.2] * 6)
    for suffix in (".mkv", ".mp4"):
        found = known(write_video(tmp_path / f"a{suffix}", 12, times_s=list(times)))
        np.testing.assert_allclose(found.times_s, times - times[0], atol=2e-3)
        frames = list(decode(tmp_path / f"a{suffix}", found, np.array([3, 7]), "decord"))
        assert [frame.time_s for frame in frames] == [found.times_s[3], found.times_s[7]]


def test_one_frame_is_a_video_of_one_frame(tmp_path: Path) -> None:
    found = known(write_video(tmp_path / "a.mp4", 1))
    assert found.frames == 1
    assert found.duration_s == pytest.approx(0.04)


def test_pixels_that_are_not_square_widen_the_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, (96, 64), pixel_aspect=Fraction(4, 3))
    assert known(path).shown_size == (128, 64)
    for decoder in DECODERS:
        assert decoded(path, decoder)[0].image.shape == (64, 128, 3)


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 1), (1, 2**31 - 1), (5, 1)])
def test_a_pixel_shape_that_no_video_has_is_a_damaged_header(tmp_path: Path, width: int, height: int) -> None:
    path = write_video(tmp_path / "a.mp4", 4, pixel_aspect=Fraction(4, 3))
    data = path.read_bytes()
    at = data.index(b"pasp") + 4
    path.write_bytes(data[:at] + struct.pack(">II", width, height) + data[at + 8 :])
    found = rejected(path)
    assert found.reason == Reason.UNREADABLE
    assert found.detail == f"a pixel aspect ratio of {Fraction(width, height)} is not plausible"


def empty(folder: Path) -> Path:
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


def garbage(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "a.mp4"


def zeros(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(bytes(5000))
    return folder / "a.mp4"


def text(folder: Path) -> Path:
    (folder / "a.ts").write_text("export const a = 1;\n" * 40)
    return folder / "a.ts"


def picture(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        assert cv2.imwrite(str(folder / f"a{suffix}"), numbered_frame(3, 96, 64))
        return (folder / f"a{suffix}").rename(folder / "a.mp4")

    return make


def gif(folder: Path) -> Path:
    return write_video(folder / "a.mp4", codec="gif", pixels="rgb8", container="gif")


def sound_only(folder: Path) -> Path:
    return write_audio(folder / "a.mp4")


def without_index(folder: Path) -> Path:
    return cut_off(write_video(folder / "a.mp4"), 0.55)


def faststart_cut_off(folder: Path) -> Path:
    path = write_video(folder / "a.mp4", 60, options={"crf": "1"}, muxer={"movflags": "faststart"})
    return cut_off(path, 0.55)


def matroska_cut_off(folder: Path) -> Path:
    return cut_off(write_video(folder / "a.mkv", 100, options={"crf": "1"}), 0.55)


def folder_named_like_a_video(folder: Path) -> Path:
    (folder / "a.mp4").mkdir()
    return folder / "a.mp4"


def dangling_link(folder: Path) -> Path:
    (folder / "a.mp4").symlink_to(folder / "nowhere.mp4")
    return folder / "a.mp4"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


@pytest.mark.parametrize(
    ("make", "reason", "detail"),
    [
        (empty, Reason.EMPTY_FILE, "0 bytes"),
        (pipe, Reason.NOT_A_REGULAR_FILE, "a named pipe is not a file"),
        (garbage, Reason.UNREADABLE, "Invalid data found"),
        (zeros, Reason.UNREADABLE, "Invalid data found"),
        (text, Reason.UNREADABLE, "Invalid data found"),
        (without_index, Reason.TRUNCATED_FILE, "the file ends before its index of frames"),
        (folder_named_like_a_video, Reason.NOT_A_REGULAR_FILE, "a directory is not a file"),
        (dangling_link, Reason.INACCESSIBLE, "No such file"),
        (sound_only, Reason.NO_VIDEO_STREAM, "streams: audio"),
        (picture(".png"), Reason.STILL_IMAGE, "container png_pipe"),
        (picture(".jpg"), Reason.STILL_IMAGE, "container jpeg_pipe"),
        (picture(".webp"), Reason.STILL_IMAGE, "container webp_pipe"),
        (gif, Reason.STILL_IMAGE, "container gif"),
        (faststart_cut_off, Reason.TRUNCATED_FILE, r"\d+ of 60 frames are in the file"),
        (matroska_cut_off, Reason.TRUNCATED_FILE, r"\d\.\d of 4\.0 seconds are in the file"),
    ],
)
def test_a_file_that_gives_no_video_is_rejected_with_its_reason(
    tmp_path: Path, make: Callable[[Path], Path], reason: Reason, detail: str
) -> None:
    found = rejected(make(tmp_path))
    assert found.reason is reason
    assert found.detail is not None
    assert re.match(detail, found.detail), found.detail
    assert str(tmp_path) not in found.detail


def test_a_codec_that_ffmpeg_does_not_know_is_a_decode_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz9", 2).replace(b"avcC", b"xyzC"))
    found = rejected(path)
    assert found.reason is Reason.DECODE_ERROR
    assert found.detail == "FFmpeg has no decoder for the codec"


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path: Path) -> None:
    path = hide_first_frames(write_video(tmp_path / "a.mp4", 24, options={"g": "6"}), 0.32)
    assert known(path).frames == 16
    for decoder in DECODERS:
        assert [number_of(frame.image) for frame in decoded(path, decoder)] == list(range(8, 24))


def test_of_several_video_streams_both_decoders_and_the_probe_take_the_same(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{width}.mp4", 5, (width, 64)) for width in (96, 192)]
    with (
        av.open(str(paths[0])) as small,
        av.open(str(paths[1])) as large,
        av.open(str(tmp_path / "a.mp4"), "w") as out,
    ):
        streams = [out.add_stream_from_template(source.streams.video[0]) for source in (small, large)]
        for source, stream in zip((small, large), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    width, _ = known(tmp_path / "a.mp4").shown_size
    for decoder in DECODERS:
        assert [frame.image.shape[1] for frame in decoded(tmp_path / "a.mp4", decoder)] == [width] * 5


def test_sound_that_outlasts_the_pictures_is_no_truncation(tmp_path: Path) -> None:
    assert known(write_video(tmp_path / "a.mp4", 24, audio=True)).frames == 24


REJECTED_CLIPS = {
    "made_zero_bytes.mp4": Reason.EMPTY_FILE,
    "made_trunc_lp_d9.mp4": Reason.TRUNCATED_FILE,
    "made_trunc_faststart_lp_d7.mp4": Reason.TRUNCATED_FILE,
}


@pytest.mark.clips
def test_every_real_clip_is_known_or_rejected_for_what_it_is(clips: Path) -> None:
    rows = [line.split("\t") for line in (clips / "MANIFEST.tsv").read_text().splitlines()]
    columns = {name: number for number, name in enumerate(rows[0])}
    for row in rows[1:]:
        name = row[columns["name"]]
        found = probe(clips / name)
        if name in REJECTED_CLIPS:
            assert isinstance(found, Rejection), name
            assert found.reason is REJECTED_CLIPS[name]
            continue
        assert isinstance(found, Probe), (name, found)
        assert found.codec == row[columns["codec"]], name
        coded = (found.coded_width, found.coded_height)
        assert coded == (int(row[columns["width"]]), int(row[columns["height"]])), name
        if row[columns["frames"]]:
            assert found.frames == int(row[columns["frames"]]), name
            # Of the pictures: the sound of some clips goes on after them.
            assert found.duration_s == pytest.approx(found.frames / float(row[columns["fps"]]), rel=0.01), (
                name
            )
