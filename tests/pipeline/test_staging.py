"""Finished videos are kept whole or not at all, and come back as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from staged_videos import accepted, configured, make_source, rejected

from pipeline.errors import BuildError
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Video
from pipeline.staging import DamagedStagedFile, Staging
from shards.schema import Reason


@pytest.fixture
def videos(tmp_path: Path) -> list[Video]:
    source = make_source(tmp_path / "clips", {"a.mp4": 10, "b.mp4": 20, "c.mp4": 30})
    return list_folder(configured(source, tmp_path / "mfhq").source).videos


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging.of(tmp_path / "mfhq", "0123456789abcdef" * 4)


def parts(staging: Staging) -> list[Path]:
    return sorted(path for path in staging.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("people", [(0,), (3, 4)])
def test_a_finished_video_comes_back_as_it_was_kept(
    staging: Staging, videos: list[Video], people: tuple[int, ...]
) -> None:
    kept = accepted(videos[0], people)
    staging.write(videos[0], kept)

    assert staging.outcome(videos[0]) == kept.outcome
    assert staging.identities(videos[0]) == kept.identities
    assert staging.seconds(videos[0]) == kept.seconds == {"probe": 0.25, "decode": 1.5}
    _, samples = staging.samples(videos[0])
    assert samples == kept.samples


def test_another_part_of_a_file_is_another_video(staging: Staging, videos: list[Video]) -> None:
    staging.write(videos[0], accepted(videos[0]))
    for part in ({"span_s": (1, 2)}, {"span_frames": (1, 2)}, {"annotated_box": (0, 0, 1, 1)}):
        assert staging.finished([videos[0].model_copy(update=part)]) == []
    assert staging.finished([videos[0].model_copy(update={"uri": "moved.mp4"})]) != []


def test_a_video_that_gave_nothing_is_finished_too(staging: Staging, videos: list[Video]) -> None:
    kept = rejected(videos[0], Reason.NO_FACE)
    staging.write(videos[0], kept)
    assert staging.outcome(videos[0]) == kept.outcome
    assert staging.identities(videos[0]) == []
    assert staging.samples(videos[0])[1] == []


def test_finished_are_those_that_were_written_and_not_forgotten(
    staging: Staging, videos: list[Video]
) -> None:
    first, second, third = videos
    assert staging.finished(videos) == []
    for video in (first, third):
        staging.write(video, accepted(video))
    assert staging.finished(videos) == [first, third]
    staging.forget([second, third])
    assert staging.finished(videos) == [first]


@pytest.mark.parametrize("change", [{"bytes": 11}, {"modified_ns": 1}, {"video_id": "demo/other.mp4"}])
def test_a_file_that_was_replaced_is_another_video(
    staging: Staging, videos: list[Video], change: dict[str, object]
) -> None:
    staging.write(videos[0], accepted(videos[0]))
    assert staging.finished([videos[0].model_copy(update=change)]) == []


def test_the_path_of_a_video_on_this_machine_does_not_matter(staging: Staging, videos: list[Video]) -> None:
    staging.write(videos[0], accepted(videos[0]))
    moved = videos[0].model_copy(update={"path": "/mnt/elsewhere/a.mp4"})
    assert staging.finished([moved]) == [moved]


def test_two_workers_that_finish_the_same_video_write_the_same_file(
    staging: Staging, videos: list[Video]
) -> None:
    staging.write(videos[0], accepted(videos[0]))
    first = {path: path.read_bytes() for path in parts(staging)}
    staging.write(videos[0], accepted(videos[0]))
    assert {path: path.read_bytes() for path in parts(staging)} == first


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from shards.atomic import open_atomic

with open_atomic(Path(sys.argv[1])) as file:
    file.write(b"PAR1 half of a part")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_counts_for_nothing_and_goes_once_it_is_old(
    staging: Staging, videos: list[Video]
) -> None:
    staging.write(videos[1], accepted(videos[1]))
    target = staging.path(videos[0])
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(target)], check=False)
    assert killed.returncode == -9
    (left,) = target.parent.glob(".*.tmp-*")
    assert staging.finished(videos) == [videos[1]]

    staging.remove_temporary_files()
    assert left.exists(), "another driver's worker may still be writing it"
    two_hours_ago = time.time() - 7200
    os.utime(left, (two_hours_ago, two_hours_ago))
    staging.remove_temporary_files()
    assert not left.exists()
    assert staging.finished(videos) == [videos[1]]


def test_tidying_leaves_the_parts_of_other_configurations(
    staging: Staging, videos: list[Video], tmp_path: Path
) -> None:
    others = Staging.of(tmp_path / "mfhq", "fedcba9876543210" * 4)
    others.write(videos[0], accepted(videos[0]))
    staging.remove_temporary_files()
    assert others.finished(videos) == [videos[0]]
    assert staging.finished(videos) == []


def damage_truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_emptied(data: bytes) -> bytes:
    return b""


def damage_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [damage_truncated, damage_emptied, damage_flipped])
def test_a_damaged_part_is_found_and_named(
    staging: Staging, videos: list[Video], damage: Callable[[bytes], bytes]
) -> None:
    staging.write(videos[0], accepted(videos[0]))
    path = staging.path(videos[0])
    assert staging.is_readable(videos[0])

    path.write_bytes(damage(path.read_bytes()))

    assert not staging.is_readable(videos[0])
    with pytest.raises(DamagedStagedFile) as caught:
        staging.samples(videos[0])
    assert "demo/a.mp4" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_part_of_another_schema_is_damaged(staging: Staging, videos: list[Video]) -> None:
    staging.write(videos[0], accepted(videos[0]))
    table = pq.read_table(staging.path(videos[0]), partitioning=None)
    strange = pc.replace_substring(table["outcome"], '"status":"accepted"', '"status":"wonderful"')
    pq.write_table(table.set_column(0, "outcome", strange), staging.path(videos[0]))
    with pytest.raises(DamagedStagedFile, match=r"demo/a\.mp4"):
        staging.outcome(videos[0])


def test_a_share_that_is_away_is_not_taken_for_damage(staging: Staging, videos: list[Video]) -> None:
    with pytest.raises(BuildError, match="No such file or directory") as caught:
        staging.outcome(videos[0])
    assert not isinstance(caught.value, DamagedStagedFile)
    with pytest.raises(BuildError, match="No such file or directory"):
        staging.is_readable(videos[0])
