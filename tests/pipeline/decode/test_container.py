"""What opens as a video: content decides, and no file that names other files is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_files import known, rejected, write_video

from pipeline.decode.container import NotAllowed, open_container
from shards.schema import Reason

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
DASH = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period></Period></MPD>'
SUBTITLES = "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nYou\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("evil.mp4", "ffconcat version 1.0\nfile other.mp4\n", Reason.UNSUPPORTED_CONTAINER),
        ("evil.mkv", "ffconcat version 1.0\nfile 'other.mp4'\n", Reason.UNSUPPORTED_CONTAINER),
        ("evil.m3u8", HLS, Reason.UNSUPPORTED_CONTAINER),
        ("evil.mp4", HLS, Reason.UNREADABLE),
        ("evil.sdp", SDP, Reason.UNSUPPORTED_CONTAINER),
        ("evil.mp4", SDP, Reason.UNSUPPORTED_CONTAINER),
        ("evil.mpd", DASH, Reason.UNREADABLE),
        ("evil.srt", SUBTITLES, Reason.UNSUPPORTED_CONTAINER),
        ("evil.mp4", SUBTITLES, Reason.UNSUPPORTED_CONTAINER),
        ("evil%03d.mp4", "no video", Reason.UNREADABLE),
    ],
)
def test_a_text_that_names_other_files_is_rejected(
    tmp_path: Path, name: str, text: str, reason: Reason
) -> None:
    write_video(tmp_path / "other.mp4")
    (tmp_path / name).write_text(text)
    found = rejected(tmp_path / name)
    assert found.reason is reason
    assert found.detail is not None
    assert str(tmp_path) not in found.detail


def test_a_script_is_rejected_by_the_name_of_its_demuxer(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    assert rejected(tmp_path / "a.mp4").detail == "container concat is not allowed"
    with pytest.raises(NotAllowed, match="concat"):
        open_container(tmp_path / "a.mp4")


def test_a_pattern_of_an_image_sequence_is_rejected(tmp_path: Path) -> None:
    write_video(tmp_path / "made.mp4", 5).rename(tmp_path / "%03d.png")
    assert rejected(tmp_path / "%03d.png").reason is Reason.STILL_IMAGE


@pytest.mark.parametrize("name", ["concat:a.mp4", "http:a.mp4", "file:a.mp4", "-i.mp4", "a|b.mp4"])
def test_a_name_that_looks_like_a_protocol_is_the_name_of_a_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "made.mp4", 5).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert known(Path(name)).frames == 5


def test_a_file_that_is_already_open_is_read_by_its_descriptor(tmp_path: Path) -> None:
    for name, options in (
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("a.mov", {}),
        ("a.flv", {}),
        ("a.ts", {}),
    ):
        with write_video(tmp_path / name, 5, **options).open("rb") as file:  # type: ignore[arg-type]
            assert known(Path(f"/proc/self/fd/{file.fileno()}")).frames == 5, name
