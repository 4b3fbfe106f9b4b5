"""A folder of videos becomes a manifest that lists every file, under any file name."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import Source
from pipeline.sources.folder import VIDEO_SUFFIXES, list_folder
from pipeline.sources.manifest import Ignored, Listing, Manifest, SourceError, Video, printable


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + os.fsencode(name))


def listed(root: Path) -> Listing:
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


def test_other_files_are_ignored_and_counted_by_their_suffix(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "notes.txt", "deep/er/more.TXT", "LICENSE", "thumb.jpg")
    manifest = listed(tmp_path)
    assert [video.uri for video in manifest.videos] == ["a.mp4"]
    assert manifest.ignored == Ignored(suffixes={"no suffix": 1, ".jpg": 1, ".txt": 2})


def test_hidden_files_and_directories_are_ignored_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "._a.mp4", ".DS_Store", "sub/.b.mp4", ".snapshot/a.mp4", ".snapshot/b.mp4")
    manifest = listed(tmp_path)
    assert [video.uri for video in manifest.videos] == ["a.mp4"]
    assert manifest.ignored == Ignored(hidden=4)


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (["*"], [], ["a.mp4", "raw/b.mp4", "raw/deep/c_front.mp4", "train/d_front.mp4"]),
        (["train/*"], [], ["train/d_front.mp4"]),
        (["*_front.mp4"], [], ["raw/deep/c_front.mp4", "train/d_front.mp4"]),
        (["*_front.mp4"], ["raw/*"], ["train/d_front.mp4"]),
        (["*"], ["raw/", "a.*"], ["train/d_front.mp4"]),
        (["*"], ["*/deep/"], ["a.mp4", "raw/b.mp4", "train/d_front.mp4"]),
        (["a.mp4", "raw/?.mp4"], [], ["a.mp4", "raw/b.mp4"]),
        (["A.MP4", "raw/b.mp4"], [], ["raw/b.mp4"]),
    ],
)
def test_globs_choose_by_the_path_below_the_source(
    tmp_path: Path, include: list[str], exclude: list[str], found: list[str]
) -> None:
    make(tmp_path, "a.mp4", "raw/b.mp4", "raw/deep/c_front.mp4", "train/d_front.mp4")
    source = Source.model_validate({"path": tmp_path, "include": include, "exclude": exclude})
    assert [video.uri for video in list_folder(source).videos] == found


def test_what_the_globs_leave_out_is_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4", "raw/c.mp4", "raw/d.mp4", "notes.txt")
    source = Source.model_validate({"path": tmp_path, "include": "*.mp4", "exclude": ["raw/", "b.mp4"]})
    # b.mp4, notes.txt and the directory raw, which is not searched.
    assert list_folder(source).ignored == Ignored(excluded=3)


@pytest.mark.parametrize("glob", ["/data/clips/*", "./a.mp4", ""])
def test_a_glob_that_can_match_no_relative_path_is_an_error(tmp_path: Path, glob: str) -> None:
    with pytest.raises(ValidationError, match=r"expected a glob of paths relative to source\.path"):
        Source.model_validate({"path": tmp_path, "exclude": [glob]})


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Give up root's right to read everything, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_subdirectory_is_skipped_and_named(shared_directory: Path) -> None:
    make(shared_directory, "a.mp4", "lost+found/b.mp4", "deep/private/c.mp4")
    for name in ("lost+found", "deep/private"):
        (shared_directory / name).chmod(0)
    with ordinary_user():
        manifest = listed(shared_directory)
    assert [video.uri for video in manifest.videos] == ["a.mp4"]
    assert manifest.ignored == Ignored(unreadable=["deep/private/", "lost+found/"])


def test_an_unreadable_subdirectory_that_is_excluded_is_not_read(shared_directory: Path) -> None:
    make(shared_directory, "a.mp4", "lost+found/b.mp4")
    (shared_directory / "lost+found").chmod(0)
    source = Source.model_validate({"path": shared_directory, "exclude": ["lost+found/"]})
    with ordinary_user():
        assert list_folder(source).ignored == Ignored(excluded=1)


def test_videos_whose_names_alone_can_be_read_stay_in_the_manifest(shared_directory: Path) -> None:
    make(shared_directory, "a.mp4", "names-only/b.mp4")
    (shared_directory / "names-only").chmod(0o444)
    with ordinary_user():
        assert uris(shared_directory) == ["a.mp4", "names-only/b.mp4"]


def test_a_source_that_is_itself_unreadable_is_an_error(shared_directory: Path) -> None:
    make(shared_directory, "clips/a.mp4")
    (shared_directory / "clips").chmod(0o311)
    with ordinary_user(), pytest.raises(SourceError, match=r"cannot read .*/clips: Permission denied"):
        listed(shared_directory / "clips")


def test_what_is_no_regular_file_but_named_like_a_video_is_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
        assert uris(tmp_path) == ["pipe.mp4", "socket.mp4"]


@pytest.mark.parametrize(
    ("ignored", "messages"),
    [
        (Ignored(), []),
        (Ignored(suffixes={".json": 1}), ["Ignored 1 file that is not a video (.json: 1)."]),
        (
            Ignored(suffixes={".json": 1, ".txt": 2}),
            ["Ignored 3 files that are not videos (.txt: 2, .json: 1)."],
        ),
        (Ignored(hidden=1), ["Ignored 1 hidden file or directory (name begins with a dot)."]),
        (
            Ignored(hidden=2, excluded=3),
            [
                "Ignored 2 hidden files or directories (name begins with a dot).",
                "Ignored 3 files or directories by source.include and source.exclude.",
            ],
        ),
        (
            Ignored(unreadable=["sub/"]),
            [
                "warning: Skipped 1 unreadable directory: sub/. Grant read access, or add it to source.exclude."
            ],
        ),
        (
            Ignored(unreadable=[*"abcdefg"]),
            [
                (
                    "warning: Skipped 7 unreadable directories: a, b, c, d, e, …. "
                    "Grant read access, or add them to source.exclude."
                )
            ],
        ),
    ],
)
def test_what_is_ignored_is_reported_in_a_sentence_each(ignored: Ignored, messages: list[str]) -> None:
    assert ignored.messages() == messages


def test_an_empty_directory_is_an_error_that_names_the_suffixes(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    with pytest.raises(SourceError) as caught:
        listed(tmp_path)
    assert str(caught.value) == (
        f"source.path: {tmp_path} contains no video file ({', '.join(sorted(VIDEO_SUFFIXES))}), subdirectories "
        "included. Ignored 1 file that is not a video (.txt: 1)."
    )


@pytest.mark.parametrize("name", ["none", "a.mp4"])
def test_a_source_that_is_no_directory_is_an_error_that_names_the_key(tmp_path: Path, name: str) -> None:
    make(tmp_path, "a.mp4")
    with pytest.raises(SourceError) as caught:
        listed(tmp_path / name)
    assert str(caught.value) == (
        f"source.path: {tmp_path}/{name} is not a directory. Pass the directory that contains the videos."
    )


@pytest.mark.parametrize(
    "name",
    [
        "-rf.mp4",
        "two  words .mp4",
        "--help/-.mp4",
        "Gesicht für Ömer 顔 😀.mp4",
        "a'b\"c$(d);e&f.mp4",
        "a.mp4.mp4",
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
    again = Manifest.model_validate_json(Manifest.of([listed(tmp_path)]).model_dump_json())
    assert list(again.ignored.values()) == [Ignored(suffixes={".\\xff": 1})]


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
    assert listed(tmp_path).videos == listed(tmp_path).videos
