"""A folder of videos becomes a manifest that loses no file, whatever the files are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Source
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Manifest, SourceError, Video, printable


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + os.fsencode(name))


def listed(root: Path) -> Manifest:
    return list_folder(Source(name="clips", path=root, license="own"))


def uris(root: Path) -> list[str]:
    return [video.uri for video in listed(root).videos]


def test_videos_of_all_subfolders_are_listed_by_id(tmp_path: Path) -> None:
    make(tmp_path, "b.mp4", "a/z.MKV", "a/b/c.webm", "a.mp4")
    videos = listed(tmp_path).videos
    assert [video.video_id for video in videos] == [
        "clips/a.mp4",
        "clips/a/b/c.webm",
        "clips/a/z.MKV",
        "clips/b.mp4",
    ]
    assert all(video.source == "clips" and video.license == "own" for video in videos)


def test_a_video_is_listed_with_its_size_and_time_of_change(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    os.utime(tmp_path / "a.mp4", ns=(5, 1_234_567_890_123_456_789))
    (video,) = listed(tmp_path).videos
    assert video.bytes == len(b"content of a.mp4")
    assert video.modified_ns == 1_234_567_890_123_456_789
    assert video.path == str(tmp_path / "a.mp4")


def test_a_relative_source_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "clips/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert listed(Path("clips")).videos[0].path == str(tmp_path / "clips" / "a.mp4")


def test_other_files_are_left_aside_and_counted_by_their_ending(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "notes.txt", "deep/er/more.TXT", "LICENSE", "thumb.jpg")
    manifest = listed(tmp_path)
    assert [video.uri for video in manifest.videos] == ["a.mp4"]
    assert manifest.ignored == {"(no ending)": 1, ".jpg": 1, ".txt": 2}


def test_an_empty_folder_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    with pytest.raises(SourceError, match=r"holds no video file \(looked for \.3gp, .*\.mp4.* sub-folders\)"):
        listed(tmp_path)


def test_a_missing_folder_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"source\.path .*/none is no folder; give the folder"):
        listed(tmp_path / "none")


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    with pytest.raises(SourceError, match="is no folder"):
        listed(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "name",
    [
        "-rf.mp4",
        "two  words .mp4",
        "--help/-.mp4",
        "Gesicht für Ömer 顔 😀.mp4",
        "a'b\"c$(d);e&f.mp4",
        ".mp4.mp4",
    ],
)
def test_unusual_names_are_listed_as_they_are(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    (video,) = listed(tmp_path).videos
    assert video.uri == name
    assert Path(video.path).read_bytes().startswith(b"content of")


def test_a_name_that_is_not_utf8_is_printed_escaped_and_can_still_be_opened(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"caf\xe9.mp4"))
    (video,) = listed(tmp_path).videos
    assert video.uri == "caf\\xe9.mp4"
    video.video_id.encode("utf-8")
    assert Path(video.path).read_bytes() == b"content of caf\xe9.mp4"


def test_a_name_that_is_not_utf8_survives_the_way_between_processes_as_json(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"odd \xff\\x41 \n\xe2\x82.mp4"), "plain\\xff.mp4")
    for video in listed(tmp_path).videos:
        again = Video.model_validate_json(video.model_dump_json())
        assert again == video
        assert Path(again.path).exists()


def test_a_name_with_odd_bytes_and_one_that_spells_them_out_have_different_ids(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"a\xff.mp4"), "a\\xff.mp4")
    assert uris(tmp_path) == ["a\\\\xff.mp4", "a\\xff.mp4"]


def test_what_does_not_print_is_escaped_in_the_id(tmp_path: Path) -> None:
    make(tmp_path, "line\nbreak \x1b[31mred.mp4")
    (video,) = listed(tmp_path).videos
    assert video.uri == "line\\u000abreak \\u001b[31mred.mp4"


def test_an_odd_ending_is_counted_in_print(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", os.fsdecode(b"b.\xff"))
    assert Manifest.model_validate_json(listed(tmp_path).model_dump_json()).ignored == {".\\xff": 1}


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_different_names_never_print_alike(names: list[bytes]) -> None:
    first, second = (printable(os.fsdecode(name)) for name in names)
    assert first != second
    assert (first + second).isprintable()


@given(st.binary(max_size=20))
def test_every_path_survives_json(path: bytes) -> None:
    video = Video(video_id="v", source="s", uri="u", path=os.fsdecode(path), bytes=0, modified_ns=0)
    assert os.fsencode(Video.model_validate_json(video.model_dump_json()).path) == path


def test_a_dangling_link_stays_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    assert uris(tmp_path) == ["gone.mp4", "self.mp4"]


def test_a_linked_video_has_the_size_of_what_it_points_to(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.mp4")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "link.mp4").symlink_to(tmp_path / "elsewhere" / "a.mp4")
    (video,) = listed(tmp_path / "clips").videos
    assert video.bytes == len(b"content of elsewhere/a.mp4")


def test_a_linked_subfolder_is_searched_too(tmp_path: Path) -> None:
    make(tmp_path, "disk2/b.mp4", "clips/a.mp4")
    (tmp_path / "clips" / "more").symlink_to(tmp_path / "disk2")
    assert uris(tmp_path / "clips") == ["a.mp4", "more/b.mp4"]


def test_a_link_that_leads_back_is_not_followed_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "clips/sub/a.mp4")
    (tmp_path / "clips" / "sub" / "up").symlink_to(tmp_path / "clips")
    assert uris(tmp_path / "clips") == ["sub/a.mp4"]


def test_a_folder_named_like_a_video_is_searched_and_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "take1.mp4/a.mp4")
    assert uris(tmp_path) == ["take1.mp4/a.mp4"]


def test_listing_twice_gives_the_same(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}.mp4" for name in "qwertz"))
    assert listed(tmp_path) == listed(tmp_path)
