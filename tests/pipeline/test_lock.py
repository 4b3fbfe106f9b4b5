"""Two builds never write to one output directory at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.lock import is_locked, output_lock

HOLDER = """
import sys
from pathlib import Path
from pipeline.lock import output_lock

with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flock` as on a file system without locks; none can be mounted in a test."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)


@pytest.fixture
def read_only_parent(tmp_path: Path) -> Iterator[Path]:
    """A directory on a read-only file system, with a writable one mounted at `mfhq`."""
    parent = tmp_path / "parent"
    parent.mkdir()
    if mount("-t", "tmpfs", "tmpfs", str(parent)):
        pytest.skip("file systems cannot be mounted here")
    try:
        (parent / "mfhq").mkdir()
        assert mount("-t", "tmpfs", "tmpfs", str(parent / "mfhq")) == 0
        assert mount("-o", "remount,ro", str(parent)) == 0
        yield parent
    finally:
        subprocess.run(["umount", "--recursive", str(parent)], check=True)


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode


def rejection(output: Path) -> str:
    with pytest.raises(BuildError) as caught, output_lock(output):
        pass
    return str(caught.value)


def test_a_second_build_of_the_same_directory_is_rejected_until_the_first_ends(tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    with output_lock(output):
        assert f"Another build is writing to {output}" in rejection(output)
    with output_lock(output):
        pass
    assert list(tmp_path.iterdir()) == [], "directories that are still empty go again"


def test_a_killed_build_lets_go(tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    command = [sys.executable, "-c", HOLDER, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert "Another build is writing" in rejection(output)
        holder.kill()
    with output_lock(output):
        pass


def test_builds_of_different_directories_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with output_lock(tmp_path / "one"), output_lock(tmp_path / "two"):
        pass


def test_a_build_that_fails_lets_go_and_keeps_what_is_there(tmp_path: Path) -> None:
    output = tmp_path / "mfhq"

    def failing_build() -> None:
        with output_lock(output):
            (output / "train").mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        failing_build()
    with output_lock(output):
        pass
    assert [path.name for path in output.iterdir()] == ["train"]


def test_the_lock_is_inside_so_that_a_mount_point_needs_no_writable_parent(tmp_path: Path) -> None:
    output = tmp_path / "mfhq"
    output.mkdir()
    with output_lock(output):
        assert [path.name for path in tmp_path.iterdir()] == ["mfhq"]
        assert (output / ".staging" / "lock").exists()
    assert list(output.iterdir()) == []


def test_a_mount_point_under_a_read_only_parent_can_be_locked(read_only_parent: Path) -> None:
    output = read_only_parent / "mfhq"
    with pytest.raises(OSError, match="Read-only file system"):
        (read_only_parent / "beside").touch()
    with output_lock(output):
        assert "Another build is writing" in rejection(output)
    assert list(output.iterdir()) == []


def test_an_output_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = rejection(tmp_path / "file" / "mfhq")
    assert f"output {tmp_path}/file/mfhq cannot be used" in message
    assert "Give a directory that can be written to" in message


def test_without_locks_a_file_marks_the_output_as_in_use(tmp_path: Path, no_locks: None) -> None:
    output = tmp_path / "mfhq"
    messages: list[str] = []
    with output_lock(output, messages.append):
        owner = output / ".staging" / "lock-owner"
        assert owner.read_text().startswith(f"process {os.getpid()} on ")
        message = rejection(output)
        assert f"Another build is writing to {output}: process {os.getpid()} on " in message
        assert f"If it no longer runs, remove {owner}" in message
        assert owner.exists(), "the second build leaves the first one's mark alone"
    assert len(messages) == 1
    assert "file system without locks" in messages[0]
    assert not output.exists()


def test_the_mark_of_a_build_without_locks_holds_for_builds_that_could_lock(tmp_path: Path) -> None:
    owner = tmp_path / "mfhq" / ".staging" / "lock-owner"
    owner.parent.mkdir(parents=True)
    owner.write_text("process 7 on other-host")
    assert "process 7 on other-host" in rejection(tmp_path / "mfhq")
    owner.unlink()
    with output_lock(tmp_path / "mfhq"):
        pass


def test_an_error_of_the_disk_is_no_other_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    assert "cannot be used" in rejection(tmp_path / "mfhq")


def test_the_message_names_the_process_that_holds_the_output(tmp_path: Path) -> None:
    with output_lock(tmp_path):
        assert f"Another build is writing to {tmp_path}: process {os.getpid()} on " in rejection(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_who_looks_whether_a_build_runs_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    lock = tmp_path / ".staging/lock"
    lock.parent.mkdir()
    lock.touch()
    with lock.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        timer = threading.Timer(0.1, looking.close)
        timer.start()
        with output_lock(tmp_path):
            assert is_locked(tmp_path)
        timer.join()


def test_a_build_that_is_refused_leaves_the_name_of_the_holder(tmp_path: Path) -> None:
    with output_lock(tmp_path):
        before = (tmp_path / ".staging/lock").read_bytes()
        rejection(tmp_path)
        assert (tmp_path / ".staging/lock").read_bytes() == before != b""
