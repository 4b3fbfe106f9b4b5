"""A list of held-out videos: each way to name a video finds it, and an ambiguous name is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.people.listed_videos import match_list, read_video_list
from pipeline.sources.manifest import printable
from pipeline.stages.finalize import sample_key


@dataclass(frozen=True)
class Listed:
    video_id: str
    source: str
    uri: str
    origin: str | None = None


TALK = Listed("ours/sub/talk.mp4", "ours", "sub/talk.mp4")
NEWS = Listed("ours/news.v2.mp4", "ours", "news.v2.mp4")
STRANGE = Listed("ours/caf\\xe9.mp4", "ours", "caf\\xe9.mp4")
FIRST = Listed("celebv-hq/-2KGPYEFnsU_8", "celebv-hq", "raw/-2KGPYEFnsU.mp4", "-2KGPYEFnsU")
SECOND = Listed("celebv-hq/-2KGPYEFnsU_81", "celebv-hq", "raw/-2KGPYEFnsU.mp4", "-2KGPYEFnsU")
THIRD = Listed("vfhq/Clip+-2KGPYEFnsU+P0", "vfhq", "Clip+-2KGPYEFnsU+P0", "-2KGPYEFnsU")
VIDEOS = [TALK, NEWS, STRANGE, FIRST, SECOND, THIRD]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("ours/sub/talk.mp4", [TALK]),
        ("sub/talk.mp4", [TALK]),
        ("./sub/talk.mp4", [TALK]),
        ("sub/talk", [TALK]),
        ("talk.mp4", [TALK]),
        ("talk", [TALK]),
        ("news.v2", [NEWS]),
        ("news", []),
        ("lk.mp4", []),
        ("caf\udce9.mp4", [STRANGE]),
        ("caf\\xe9.mp4", [STRANGE]),
        (sample_key(TALK, 0), [TALK]),
        (sample_key(SECOND, 12), [SECOND]),
        ("-2KGPYEFnsU", [FIRST, SECOND, THIRD]),
        ("-2KGPYEFnsU.mp4", [FIRST, SECOND]),
        ("-2KGPYEFnsU_8", [FIRST]),
        ("celebv-hq/-2KGPYEFnsU_8", [FIRST]),
        ("Clip+-2KGPYEFnsU+P0", [THIRD]),
    ],
)
def test_each_way_to_name_a_video_finds_it(entry: str, expected: list[Listed]) -> None:
    found = match_list([entry], VIDEOS).entries
    assert found == {printable(entry): tuple(sorted(video.video_id for video in expected))}


def test_names_are_what_stands_between_line_feeds_and_all_of_them_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\u2028b.mp4\r\n \n# no\n".encode() + b"caf\xe9.mp4\n")
    entries = read_video_list(path).entries
    assert entries == ("a\u2028b.mp4", "caf\udce9.mp4")
    listed = match_list(entries, [TALK])
    listed.messages()[0].encode()
    assert set(listed.entries) == {r"a\u2028b.mp4", r"caf\xe9.mp4"}


def test_a_name_of_several_files_is_an_error_that_names_them_and_an_id_is_not() -> None:
    other = Listed("theirs/b/talk.mp4", "theirs", "b/talk.mp4")
    for entry in ("talk.mp4", "talk"):
        with pytest.raises(BuildError) as error:
            match_list([entry], [*VIDEOS, other])
        assert str(error.value) == (
            f"split.test_list: {entry} is ambiguous: it names ours/sub/talk.mp4, theirs/b/talk.mp4. Give the "
            "id of the video that is meant"
        )
    # An id is exact, also where it is the path of a file in another source.
    nested = Listed("theirs/ours/sub/talk.mp4", "theirs", "ours/sub/talk.mp4")
    assert match_list([TALK.video_id], [*VIDEOS, nested]).video_ids == {TALK.video_id}


def test_an_origin_also_names_a_file_that_is_called_like_it() -> None:
    download = Listed("ours/-2KGPYEFnsU.mkv", "ours", "-2KGPYEFnsU.mkv")
    found = match_list(["-2KGPYEFnsU"], [*VIDEOS, download]).video_ids
    assert found == {video.video_id for video in (FIRST, SECOND, THIRD, download)}


def test_entries_without_a_video_are_named_before_the_build() -> None:
    found = match_list(["talk", *(f"gone-{number}" for number in range(5))], VIDEOS)
    assert found.unknown == [f"gone-{number}" for number in range(5)]
    assert found.messages() == [
        (
            "split.test_list: the sources have no video for 5 of 6 entries: gone-0, gone-1, gone-2 and 2 more. "
            "They do not change the split. Names are compared exactly; paths are relative to the source's path."
        )
    ]
    assert match_list(["talk"], VIDEOS).messages() == []


def test_a_list_is_read_without_comments_empty_lines_and_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf# the paper's\r\na.mp4\r\n\r\n  b #1.mp4  \na.mp4\ncaf\xe9.mp4")
    found = read_video_list(path)
    assert found.entries == ("a.mp4", "b #1.mp4", "caf\udce9.mp4")
    assert len(found.sha256) == 64


@pytest.mark.parametrize("content", [None, b"PAR1\0\0"])
def test_a_list_that_can_not_be_read_is_an_error_with_the_key(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=r"split\.test_list: .*list\.txt .*one video a line"):
        read_video_list(path)
    with pytest.raises(BuildError, match=r"split\.test_list: .* cannot be read: Is a directory"):
        read_video_list(tmp_path)


def test_a_whole_path_is_not_ambiguous_when_a_file_below_has_its_name() -> None:
    top = Listed("ours/talk.mp4", "ours", "talk.mp4")
    assert match_list(["talk.mp4"], [TALK, top]).video_ids == {top.video_id}
