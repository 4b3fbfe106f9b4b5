"""Each test tries to break out of a decoding process, from inside of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from sandboxed_videos import Attack, attack_with

from pipeline.sandbox import SandboxedDecoder
from shards.schema import Reason

STOPPED = "the sandbox stopped the decoder (SIGSYS): it made a system call that decoding never needs"

pytestmark = pytest.mark.skipif(os.uname().sysname != "Linux", reason="the sandbox is Linux's")


@pytest.fixture
def needs_landlock(hostile: SandboxedDecoder) -> None:
    if hostile.enforced.landlock_abi == 0:
        pytest.skip("this kernel has no Landlock")


@pytest.fixture(autouse=True)
def needs_seccomp(hostile: SandboxedDecoder) -> None:
    if not hostile.enforced.seccomp:
        pytest.skip("this machine has no seccomp")


@pytest.mark.usefixtures("needs_landlock")
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "/proc/self/maps", "/dev/zero"])
def test_no_other_file_can_be_read(attack: Attack, path: str) -> None:
    assert attack("open_other_file", path).detail == "EACCES"


@pytest.mark.usefixtures("needs_landlock")
def test_the_file_next_to_the_video_cannot_be_read(attack: Attack, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_text("not yours", encoding="utf-8")
    assert attack("open_other_file", other).detail == "EACCES"


@pytest.mark.usefixtures("needs_landlock")
@pytest.mark.parametrize("name", ["list_directory", "open_own_memory"])
def test_neither_directories_nor_memory_can_be_opened(attack: Attack, tmp_path: Path, name: str) -> None:
    assert attack(name, tmp_path).detail == "EACCES"


def test_the_video_itself_can_be_opened_again(attack: Attack) -> None:
    assert attack("open_video_again").detail == "read open_video_again"


@pytest.mark.parametrize("name", ["create_file", "create_file_with_old_call"])
def test_no_file_can_be_created(attack: Attack, tmp_path: Path, name: str) -> None:
    new = tmp_path / "new"
    assert attack(name, new).detail == "EPERM"
    assert not new.exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [("open_video_for_writing", "EPERM"), ("write_to_video", "EBADF"), ("truncate_video", "EPERM")],
)
def test_the_video_cannot_be_changed(attack: Attack, tmp_path: Path, name: str, error: str) -> None:
    assert attack(name).detail == error
    assert (tmp_path / "evil.mp4").read_text(encoding="utf-8") == f"{name}\n"


@pytest.mark.parametrize("name", ["delete_file", "rename_file", "change_mode"])
def test_other_files_stay_as_they_are(attack: Attack, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    other.touch(mode=0o600)
    assert attack(name, other).detail == "EPERM"
    assert other.stat().st_mode & 0o777 == 0o600


def test_only_the_video_and_the_talk_with_the_build_are_open(attack: Attack) -> None:
    with open("/etc/passwd", encoding="utf-8") as held:  # noqa: PTH123
        os.set_inheritable(held.fileno(), True)
        assert attack("count_descriptors").detail == "4 known, unknown: []"


def test_descriptors_run_out(attack: Attack) -> None:
    assert attack("exhaust_descriptors").detail == "EMFILE"


def test_the_shared_memory_keeps_its_size(attack: Attack) -> None:
    assert attack("shrink_shared_memory").detail == "EPERM"


def test_nothing_is_written_to_a_file_even_where_a_descriptor_would_allow_it(attack: Attack) -> None:
    assert attack("write_to_shared_memory_by_call").detail == "EFBIG"


def test_the_environment_is_empty(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert attack("read_environment").detail == "{} in /"


def test_tcp_is_out_of_reach(attack: Attack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        assert attack("connect_tcp", server.getsockname()[1]).detail == STOPPED
        with pytest.raises(BlockingIOError):
            server.accept()


def test_udp_is_out_of_reach(attack: Attack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        assert attack("send_udp", server.getsockname()[1]).detail == STOPPED
        with pytest.raises(BlockingIOError):
            server.recv(1)


@pytest.mark.parametrize("name", ["connect_unix", "make_socket_pair", "make_io_uring"])
def test_other_sockets_and_io_uring_are_out_of_reach(attack: Attack, tmp_path: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        assert attack(name, tmp_path / "socket").detail == STOPPED


@pytest.mark.parametrize(
    "name",
    [
        "fork",
        "run_program",
        "trace_parent",
        "read_parent_memory",
        "kill_parent",
        "become_another_user",
        "make_namespace",
        "use_x32_calls",
    ],
)
def test_processes_and_rights_are_out_of_reach(attack: Attack, name: str) -> None:
    rejection = attack(name)
    assert (rejection.reason, rejection.detail) == (Reason.SANDBOX_VIOLATION, STOPPED)


@pytest.mark.parametrize("name", ["kill_build", "kill_thread_of_build"])
def test_the_build_cannot_be_signalled(attack: Attack, name: str) -> None:
    assert attack(name, os.getpid()).detail == STOPPED


@pytest.mark.parametrize(
    "name",
    ["map_code", "make_memory_file", "raise_limit", "allow_new_privileges", "ask_for_signal_from_kernel"],
)
def test_what_is_given_up_does_not_come_back(attack: Attack, name: str) -> None:
    assert attack(name, os.getpid()).detail in {"EPERM", "EACCES"}


def test_threads_are_rejected_where_the_decoder_needs_none(attack: Attack) -> None:
    assert attack("start_thread").detail == "can't start new thread"


def test_threads_start_where_the_decoder_needs_them(tmp_path: Path) -> None:
    hostile = SandboxedDecoder(threads=True, entry="hostile_decoder:serve")
    try:
        assert attack_with(hostile, tmp_path, "start_thread").detail == "succeeded"
        assert attack_with(hostile, tmp_path, "fork").detail == STOPPED
    finally:
        hostile.close()


@pytest.mark.parametrize("name", ["allocate", "allocate_shared"])
def test_memory_has_a_limit(attack: Attack, name: str) -> None:
    rejection = attack(name)
    out = (Reason.OUT_OF_MEMORY, "more than 0.25 GB (run.video_memory_gb); --retry-failed tries again")
    assert (rejection.reason, rejection.detail) == out or rejection.detail == "ENOMEM"
