"""A reader never sees half of a file."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from shards.atomic import OutOfSpace, open_atomic, remove_temporaries, write_bytes, write_parquet


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file.bin"
    with open_atomic(path) as file:
        file.write(b"one")
        file.flush()
        assert not path.exists()
        assert len(list(path.parent.iterdir())) == 1
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def fail() -> None:
        with open_atomic(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_need_not_survive_a_power_cut_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_bytes(tmp_path / "quick", b"whole", durable=False)
    assert synced == []
    write_bytes(tmp_path / "safe", b"whole")
    assert len(synced) == 2  # the file and its folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick", "safe"]


def test_the_umask_decides_who_may_read_a_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file.bin", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file.bin").stat().st_mode & 0o777 == 0o640


def test_a_parent_that_is_a_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"x")
    with pytest.raises(OSError, match="file") as caught:
        write_bytes(tmp_path / "file" / "inner", b"x")
    assert not isinstance(caught.value, OutOfSpace)


def test_what_a_killed_process_left_is_recognised_and_removed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with open_atomic(tmp_path / "part.parquet") as file:
            file.write(b"half")
            file.flush()
            os._exit(9)
    os.waitpid(child, 0)
    write_bytes(tmp_path / "kept.bin", b"x")
    write_bytes(tmp_path / ".hidden.tmp-notours", b"x")
    (stale,) = (path for path in tmp_path.iterdir() if "part" in path.name)
    assert stale.name.startswith(".part.parquet.tmp-")
    assert remove_temporaries(tmp_path, min_age_s=3600) == []
    assert remove_temporaries(tmp_path) == [stale]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp-notours", "kept.bin"]


def test_a_missing_folder_has_no_temporaries(tmp_path: Path) -> None:
    assert remove_temporaries(tmp_path / "nowhere") == []


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000)), "b": [str(number % 7) for number in range(1000)]})
    write_parquet(tmp_path / "one.parquet", table)
    write_parquet(tmp_path / "two.parquet", pa.concat_tables([table.slice(0, 300), table.slice(300)]))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_out_of_space_names_the_file_the_room_left_and_the_remedy() -> None:
    error = OutOfSpace(Path("/data/x.tar"), 1234, errno.EDQUOT)
    assert str(error) == (
        "cannot write /data/x.tar: the disk quota is used up (1,234 bytes free on its file system). "
        "Free space or choose another output, then run the same command again: finished work is kept"
    )


def test_out_of_space_survives_the_way_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(OutOfSpace(Path("/data/x.tar"), 5)))  # noqa: S301 - our own bytes
    assert (copy.path, copy.free_bytes, copy.errno) == (Path("/data/x.tar"), 5, errno.ENOSPC)
    assert "the disk is full (5 bytes free" in str(copy)
