"""Files and clips come back from the temporary database as they were."""

from __future__ import annotations

import sqlite3

import pytest

from pipeline.sources.annotations.clip import AnnotatedClip
from pipeline.sources.manifest import Extent, SourceError
from pipeline.sources.rows import FoundFile, SourceRows
from shards.schema import Attribute

FULL = AnnotatedClip(
    key="a_1",
    origin="a",
    part="a",
    span_s=(0.1, 1 / 3),
    box=(0.1, 0.2, 0.3, 0.7),
    frame_rate=24.0,
    person="P1",
    attributes=(Attribute(name="emotion", value="neutral, \ud800 happy"),),
)
FRAMES = AnnotatedClip(key="a_2", origin="a", part="a", frames=(10, 59), box_px=(1, 2, 3, 4.5))


def file(uri: str, size: int = 5, **facts: int) -> FoundFile:
    return FoundFile(uri, facts.get("path", uri), size, facts.get("modified_ns", 1), is_folder=False)


def test_clips_and_files_come_back_unchanged() -> None:
    rows = SourceRows()
    rows.add_clip(FULL, 25)
    rows.add_clip(FRAMES, 25)
    # A path that is no UTF-8, and a time that no 64 bits hold.
    odd = FoundFile("d/a.mp4", "d/a\udcff.mp4", 7, 2**70, is_folder=True)
    rows.add_file(odd, "a")
    rows.add_file(file("d/a_2.mp4"), "a_2")
    extent, skipped = rows.match()
    assert list(rows.videos()) == [(FULL, odd, False), (FRAMES, file("d/a_2.mp4"), True)]
    assert extent == Extent(listed=2, videos=2, bytes=12, seconds=1 / 3 - 0.1 + 2.0, rate_assumed=1)
    assert skipped == {
        "unannotated": 0,
        "unannotated_such_as": [],
        "duplicates": 0,
        "conflicting": 0,
    }


def test_of_files_with_one_name_the_first_that_is_not_empty_counts() -> None:
    rows = SourceRows()
    rows.add_clip(FULL, 25)
    for name, size in (("c/a.mp4", 3), ("a/a.mp4", 0), ("b/a.mp4", 4)):
        rows.add_file(file(name, size), "a")
    rows.add_file(file("other.mp4"), "other")
    extent, skipped = rows.match()
    assert [found.uri for _, found, _ in rows.videos()] == ["b/a.mp4"]
    assert (extent.bytes, skipped["duplicates"], skipped["unannotated"]) == (4, 2, 1)


def test_a_file_that_only_holds_clips_with_files_of_their_own_is_not_counted() -> None:
    rows = SourceRows()
    rows.add_clip(FULL, 25)
    rows.add_file(file("a.mp4", 1000), "a")
    rows.add_file(file("a_1.mp4", 10), "a_1")
    extent, _ = rows.match()
    assert extent.bytes == 10


def test_the_first_entry_of_a_clip_counts_and_an_equal_one_is_no_conflict() -> None:
    rows = SourceRows()
    for clip in (FULL, FULL, FRAMES, AnnotatedClip(key="a_2", origin="a", part="a", frames=(0, 9))):
        rows.add_clip(clip, 25)
    rows.add_file(file("a.mp4"), "a")
    extent, skipped = rows.match()
    assert (extent.listed, skipped["conflicting"]) == (2, 1)
    assert [clip.frames for clip, _, _ in rows.videos()] == [None, (10, 59)]


def test_a_full_temporary_directory_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(SourceError, match=r"temporary directory \(database or disk is full\).*SQLITE_TMPDIR"):
        SourceRows()
