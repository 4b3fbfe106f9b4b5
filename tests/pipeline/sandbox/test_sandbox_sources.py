"""What is opened as a video, and whether a read error is the file's or the storage's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from sandboxed_videos import TIMEOUT_S, decode_all, failure_of

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed, SandboxedDecoder
from pipeline.sandbox.source import Source, open_source
from shards.schema import Reason


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (os.mkfifo, "a named pipe, not a file"),
        (os.mkdir, "a directory, not a file"),
        (make_socket, "a socket, not a file"),
        (make_link_to_device, "a device, not a file"),
    ],
)
def test_what_is_no_file_is_rejected_at_once(
    tmp_path: Path, make: Callable[[Path], None], detail: str
) -> None:
    path = tmp_path / "x.mp4"
    make(path)
    assert open_source(path) == Rejection(Reason.NOT_A_REGULAR_FILE, detail)


def test_a_link_to_itself_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.symlink_to(path)
    assert open_source(path) == Rejection(Reason.INACCESSIBLE, "Too many levels of symbolic links")


def test_an_empty_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.touch()
    assert open_source(path) == Rejection(Reason.EMPTY_FILE, "0 bytes")


def test_a_file_that_is_gone_is_rejected_but_a_directory_that_is_gone_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "another.mp4").touch()
    assert open_source(tmp_path / "x.mp4") == Rejection(Reason.INACCESSIBLE, "No such file or directory")
    with pytest.raises(MachineFault, match=r"cannot be read \(No such file or directory\)"):
        open_source(tmp_path / "gone" / "x.mp4")


def test_a_directory_without_any_file_is_a_share_that_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="Check that the source is mounted on every node"):
        open_source(tmp_path / "x.mp4")


def test_a_read_error_is_the_machine() -> None:
    # Reading this process's memory at address 0 is an I/O error of the kernel's.
    source = Source(Path("clip.mp4"), os.open("/proc/self/mem", os.O_RDONLY))
    with pytest.raises(MachineFault, match=r"clip.mp4 cannot be read \(Input/output error\)"):
        source.check()
    source.close()


def test_a_file_that_changes_while_it_is_read_is_rejected(decoder: SandboxedDecoder, tmp_path: Path) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"no video yet")
    with decoder.open(path, TIMEOUT_S) as video:
        path.write_bytes(b"no video yet, and more of it")
        with pytest.raises(DecodeFailed, match="unreadable: the file changed while it was read"):
            video.probe()


def test_a_script_that_names_another_file_is_no_video(decoder: SandboxedDecoder, clip: Path) -> None:
    path = clip.with_name("evil.mp4")
    path.write_text(f"ffconcat version 1.0\nfile {clip.name}\n", encoding="utf-8")
    assert failure_of(decoder, path).reason is Reason.UNSUPPORTED_CONTAINER


def test_a_name_that_is_no_utf8_is_decoded(decoder: SandboxedDecoder, clip: Path) -> None:
    path = clip.rename(clip.with_name(os.fsdecode(b"caf\xe9.mp4")))
    assert len(decode_all(decoder, path)) == 30
