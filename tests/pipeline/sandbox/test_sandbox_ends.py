"""However a decoding process ends, its video is one outcome and the next video is decoded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from sandboxed_videos import TIMEOUT_S, Attack, attack_with, decode_all, write_clip

from pipeline.errors import MachineFault
from pipeline.sandbox import SandboxedDecoder, server
from pipeline.sandbox.confine import Policy
from pipeline.sandbox.ring import create_memory
from pipeline.sandbox.server import Child, ChildEnded, ForkServer
from shards.schema import Reason
from tests.processes import command_of, has_ended, left_open, open_descriptors


@pytest.fixture
def forks() -> Iterator[ForkServer]:
    server = ForkServer("hostile_decoder:serve")
    yield server
    server.close()


def test_what_a_process_sent_is_read_although_it_ended_with_messages_unread() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, other = socket.socketpair()
    child = Child(0, ours, control)
    deadline = time.monotonic() + 5
    for message in (b"first", b"second"):
        theirs.send(message)
    child.send(b"never read", deadline)
    theirs.close()
    assert [child.receive(deadline), child.receive(deadline)] == [b"first", b"second"]
    with pytest.raises(ChildEnded):
        child.receive(deadline)
    for end in (ours, control, other):
        end.close()


def processes_of(process: psutil.Process) -> list[psutil.Process]:
    """Fork servers of a build, and their children."""
    return [child for child in process.children(recursive=True) if "pipeline.sandbox" in command_of(child)]


def decoding_process() -> psutil.Process:
    """The one process that is being decoded in, of the newest fork server."""
    return processes_of(psutil.Process())[-1]


@pytest.mark.parametrize(("name", "death"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_crash_is_one_failed_row(attack: Attack, name: str, death: str) -> None:
    rejection = attack(name)
    assert (rejection.reason, rejection.detail) == (
        Reason.DECODER_CRASHED,
        f"the decoder was ended by {death}",
    )


def test_a_crash_is_tried_once_more(attack: Attack) -> None:
    assert attack("crash_once").detail == "the second attempt"


def test_a_crash_is_not_tried_again_when_that_is_configured(tmp_path: Path) -> None:
    hostile = SandboxedDecoder(crash_retries=0, entry="hostile_decoder:serve")
    try:
        assert attack_with(hostile, tmp_path, "crash_once").detail == "the decoder was ended by SIGSEGV"
    finally:
        hostile.close()


@pytest.mark.parametrize(("name", "code"), [("exit_quietly", 0), ("raise_error", 70)])
def test_a_process_that_leaves_is_a_crash(attack: Attack, name: str, code: int) -> None:
    assert attack(name).detail == f"the decoder ended with exit code {code}"


@pytest.mark.parametrize("name", ["hang", "stop_itself"])
def test_a_hang_ends_at_the_time_limit(attack: Attack, name: str) -> None:
    began = time.monotonic()
    rejection = attack(name, timeout_s=1.0)
    assert time.monotonic() - began < 30
    assert rejection.reason is Reason.TIMEOUT
    assert rejection.detail == "longer than 1 s (run.video_timeout_s); --retry-failed tries again"


def test_a_process_that_burns_cpu_is_ended_by_the_kernel_as_well(forks: ForkServer, tmp_path: Path) -> None:
    memory = create_memory(4096)
    with (tmp_path / "evil.mp4").open("w+b") as file:
        file.write(b"burn_cpu\n")
        file.flush()
        child = forks.fork(Policy(2**30, cpu_s=1, shared_bytes=2**20), file.fileno(), memory)
        assert child.receive(time.monotonic() + TIMEOUT_S)[:1] == b"C"
        child.send(b"{}", time.monotonic() + TIMEOUT_S)
        assert child.end(patience_s=TIMEOUT_S) == -signal.SIGXCPU
    os.close(memory)


def test_the_next_video_is_decoded_after_every_end(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    decoder = SandboxedDecoder()
    try:
        for ending in (signal.SIGKILL, signal.SIGSEGV):
            with decoder.open(clip, TIMEOUT_S) as video:
                indices = []
                for frame in video.frames(np.arange(30), "pyav"):
                    if frame.index == 3:
                        decoding_process().send_signal(ending)
                    indices.append(frame.index)
            assert indices == list(range(30))
    finally:
        decoder.close()


def test_a_frame_that_was_sent_before_the_process_ended_is_not_lost(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive_and_kill(child: server.Child, deadline: float) -> bytes:
        message = receive(child, deadline)
        if message[:1] == b"F" and not killed:
            killed.append(decoding_process())
            killed[0].kill()
            while not has_ended(killed[0]):
                time.sleep(0.01)
        return message

    killed: list[psutil.Process] = []
    receive = server.Child.receive
    monkeypatch.setattr(server.Child, "receive", receive_and_kill)
    decoder = SandboxedDecoder()
    try:
        assert [frame.index for frame in decode_all(decoder, clip)] == list(range(30))
    finally:
        decoder.close()
    assert len(killed) == 1


def test_a_video_survives_the_end_of_the_fork_server(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    decoder = SandboxedDecoder()
    try:
        with decoder.open(clip, TIMEOUT_S) as video:
            indices = []
            for frame in video.frames(np.arange(30), "pyav"):
                if frame.index == 3:
                    decoding_process().parent().kill()
                indices.append(frame.index)
        assert indices == list(range(30))
    finally:
        decoder.close()


def test_an_end_that_is_told_late_is_not_taken_for_that_of_the_next_video(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(psutil.Process().children())
    decoder = SandboxedDecoder(memory_gb=2.0)
    (forks,) = set(psutil.Process().children()) - before
    with monkeypatch.context() as impatient, decoder.open(clip, TIMEOUT_S) as video:
        video.probe()
        forks.suspend()
        impatient.setattr(server, "GRACE_S", 0.1)
    forks.resume()
    assert [len(decode_all(decoder, clip)) for _ in range(2)] == [30, 30]
    decoder.close()


def test_a_machine_that_starts_no_fork_server_any_more_is_no_fault_of_the_video(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SandboxedDecoder(memory_gb=2.0)
    decoder.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MachineFault, match=r"did not start .* Check the memory and the process limit"):
        decode_all(decoder, clip)


def test_a_video_whose_process_is_always_killed_fails(tmp_path: Path) -> None:
    decoder = SandboxedDecoder(entry="hostile_decoder:serve")
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(os.getpid())])
    try:
        rejection = attack_with(decoder, tmp_path, "hang")
    finally:
        killer.kill()
        killer.wait()
        decoder.close()
    assert rejection.reason is Reason.DECODER_CRASHED
    assert rejection.detail == "the decoder was ended by SIGKILL; the kernel does this when memory runs out"


KILLER = """
import contextlib, sys, time, psutil
build = psutil.Process(int(sys.argv[1]))
while True:
    time.sleep(0.05)
    for server in build.children():
        with contextlib.suppress(psutil.Error):  # ended in between
            if "pipeline.sandbox" in " ".join(server.cmdline()):
                for child in server.children():
                    child.kill()
"""


def test_everything_ends_with_the_build(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    build = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD), str(clip)], stdout=subprocess.PIPE, text=True
    )
    assert build.stdout is not None
    assert build.stdout.readline() == "decoding\n"
    begun = processes_of(psutil.Process(build.pid))
    assert len(begun) == 2
    build.kill()
    build.wait()
    _, alive = psutil.wait_procs(begun, timeout=30)
    assert alive == []


BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from pipeline.sandbox import SandboxedDecoder
with SandboxedDecoder().open(Path(sys.argv[1]), 100.0) as video:
    frames = video.frames(np.arange(30), "pyav")
    next(frames)
    print("decoding", flush=True)
    time.sleep(100)
"""


def test_closing_leaves_no_process_and_no_descriptor(clip: Path) -> None:
    processes, descriptors = processes_of(psutil.Process()), open_descriptors()
    decoder = SandboxedDecoder()
    for _ in range(3):
        with decoder.open(clip, TIMEOUT_S) as video:
            next(video.frames(np.arange(30), "pyav"))
    decoder.close()
    assert set(processes_of(psutil.Process())) <= set(processes)
    assert left_open(descriptors) == set()
