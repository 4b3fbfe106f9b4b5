"""What the storage does not answer is the machine's fault, within the time limit: with a real mount that hangs."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import MachineFault
from pipeline.sandbox import SandboxedDecoder
from pipeline.sandbox.source import open_source
from pipeline.time_limit import NoHeartbeat, while_beating, within
from storage.heartbeat import SLOWEST_BYTES_S, beat, beat_for_retry, since_beat_s

MNT_DETACH = 2


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system whose server never answers."""
    folder = tmp_path / "hung"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no file system can be served here: {error}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
        os.close(server)
        pytest.skip(f"a file system cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    os.close(server)  # those that wait get an error
    libc.umount2(os.fsencode(folder), MNT_DETACH)


def test_a_mount_that_hangs_is_a_fault_of_the_machine_in_time(hung_mount: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(
        MachineFault, match=r"clip\.mp4 does not answer.*within 0\.3 s \(run\.storage_timeout_s\)"
    ):
        open_source(hung_mount / "clip.mp4", timeout_s=0.3)
    assert time.monotonic() - begin < 5


def test_a_decoder_does_not_wait_for_a_mount_that_hangs(hung_mount: Path) -> None:
    decoder = SandboxedDecoder(storage_timeout_s=0.3)
    try:
        with (
            pytest.raises(MachineFault, match="does not answer"),
            decoder.open(hung_mount / "clip.mp4", 60.0),
        ):
            pass
    finally:
        decoder.close()


def test_what_returns_in_time_is_returned() -> None:
    assert within(5.0, "x", lambda: 7) == 7


def test_what_a_call_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        within(5.0, "x", (tmp_path / "gone").read_bytes)


def test_work_that_gives_signs_of_life_may_take_longer_than_its_limit() -> None:
    def long() -> int:
        for _ in range(8):
            time.sleep(0.1)
            beat()
        return 7

    assert while_beating(0.4, "train/000000.tar", long) == 7


def test_work_that_falls_silent_is_left_behind() -> None:
    ever = threading.Event()

    def falls_silent() -> None:
        beat()
        ever.wait()

    begun = time.monotonic()
    with pytest.raises(NoHeartbeat, match=r"^train/000000\.tar: nothing was read or written for 0\.3 s"):
        while_beating(0.3, "train/000000.tar", falls_silent)
    assert time.monotonic() - begun < 5
    ever.set()


def test_a_call_that_moves_many_bytes_gets_the_time_for_them() -> None:
    def flushes() -> int:
        beat(next_bytes=SLOWEST_BYTES_S)
        time.sleep(0.6)
        return 7

    assert while_beating(0.2, "train/000000.tar", flushes) == 7


def test_what_limited_work_raises_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        while_beating(5, "x", lambda: 1 // 0)


def test_a_request_that_is_tried_again_leaves_a_large_call_its_time() -> None:
    beat(next_bytes=100 * SLOWEST_BYTES_S)
    beat_for_retry()
    assert since_beat_s() < -90
    beat()
    assert -1 < since_beat_s() < 1
