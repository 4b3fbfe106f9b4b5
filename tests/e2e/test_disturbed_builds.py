"""Builds that are stopped, crash, hang or run out of disk: real processes, real signals, a real full disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from builds import Cluster, build, canonical_files, mfhq, staged, start_build, wait_until_staged

from pipeline.monitor.writer import read_state
from shards.reader import Dataset
from shards.schema import Reason, Status
from shards.verify import verify
from tests.processes import command_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STARTING = (
    r"Joining the Ray cluster at [\d.:]+, and loading the networks in every process, takes some seconds"
)

ODD_NAME = "-größer als $(5 €).mp4"


@pytest.fixture
def few_clips(demo_clips: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("astronaut.mp4", "cut.mp4", "no-face.mp4"):
        shutil.copy2(demo_clips / name, folder / name)
    shutil.copy2(demo_clips / "variable-rate.mp4", folder / ODD_NAME)
    return folder


def test_a_killed_build_continues_and_ends_with_the_same_bytes(
    cluster: Cluster, demo_clips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mfhq"

    first = start_build(cluster, demo_clips, output, log=tmp_path / "first.log")
    wait_until_staged(output, 2, first)
    for worker in decoding(cluster):
        with contextlib.suppress(psutil.NoSuchProcess):  # it lives for one video only
            worker.kill()
    wait_until_staged(output, 4, first)
    (actor,) = actors(cluster)
    actor.send_signal(signal.SIGABRT)  # a Ray worker, which leaves its stack in Ray's logs
    wait_until_staged(output, 6, first)
    first.kill()
    first.wait()
    end_workers(cluster)
    finished = staged(output)
    assert not (output / "dataset.json").exists()
    assert "SIGABRT" not in (tmp_path / "first.log").read_text()

    second = build(cluster, demo_clips, output, "run.analysers=1")  # how work is divided changes no byte
    assert second.returncode == 0, second.stderr
    assert f"{finished} finished by an earlier run" in second.stderr
    assert canonical_files(output) == canonical_files(undisturbed)


def test_a_decoder_that_crashes_or_hangs_costs_its_own_video_only(
    cluster: Cluster, few_clips: Path, tmp_path: Path
) -> None:
    for name in ("crashes.mp4", "hangs.mp4"):
        shutil.copy2(few_clips / "astronaut.mp4", few_clips / name)
        with (few_clips / name).open("ab") as file:
            file.write(name.encode())  # not the same content as another clip

    with (
        signalled(cluster, few_clips / "crashes.mp4", signal.SIGSEGV),
        signalled(cluster, few_clips / "hangs.mp4", signal.SIGSTOP),
    ):
        made = build(cluster, few_clips, tmp_path / "mfhq", "run.video_timeout_s=40")

    assert made.returncode == 0, made.stderr
    videos = {video.uri: video for video in Dataset.open(tmp_path / "mfhq").videos()}
    assert (videos["crashes.mp4"].status, videos["crashes.mp4"].reason) == (
        Status.FAILED,
        Reason.DECODER_CRASHED,
    )
    assert "SIGSEGV" in (videos["crashes.mp4"].detail or "")
    assert f"crashes.mp4 is one failed video (decoder_crashed): {videos['crashes.mp4'].detail}" in made.stderr
    assert (videos["hangs.mp4"].status, videos["hangs.mp4"].reason) == (Status.FAILED, Reason.TIMEOUT)
    others = {uri: video.status for uri, video in videos.items() if video.status is not Status.FAILED}
    assert others == {
        "astronaut.mp4": Status.ACCEPTED,
        "cut.mp4": Status.ACCEPTED,
        ODD_NAME: Status.ACCEPTED,
        "no-face.mp4": Status.REJECTED,
    }


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_that_is_asked_to_stop_says_how_far_it_is(
    cluster: Cluster, demo_clips: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    log = tmp_path / "build.log"
    stopped = start_build(cluster, demo_clips, tmp_path / "mfhq", log=log)
    wait_until_staged(tmp_path / "mfhq", 1, stopped)
    stopped.send_signal(number)

    assert stopped.wait(120) == exit_code
    first, second, third, dashboard, fourth, *progress, done, last = log.read_text().splitlines()
    assert first == "15 videos, 0 finished by an earlier run"
    assert second == "Ignored 1 file that is not a video (.json: 1)."
    assert re.fullmatch(STARTING, third)
    assert dashboard == f"Ray's dashboard: {cluster.environment['RAY_API_SERVER_ADDRESS']}"
    assert fourth == "curate: 0/15"
    assert all(re.fullmatch(r"curate: \d+/15 after .* failed", line) for line in progress)
    assert re.fullmatch(r"\d+ of 15 videos are finished", done)
    assert last == "stopped; the same command continues"
    told = mfhq(cluster, "status", str(tmp_path / "mfhq")).stdout.splitlines()
    assert told[0].startswith(f"{tmp_path / 'mfhq'}: stopped ")
    assert re.match(r"curate +\d+ of 15 videos", told[1])
    again = f"  RAY_ADDRESS={cluster.environment['RAY_ADDRESS']} mfhq build workflows/curate_demo.yaml "
    assert told[-1].startswith(f"{again}source.path={demo_clips} output=")


def test_a_full_disk_ends_the_build_in_one_message_and_loses_nothing(
    cluster: Cluster, few_clips: Path, small_disk: Callable[[int], Path]
) -> None:
    output = small_disk(600 * 2**10)
    full = build(cluster, few_clips, output)
    assert full.returncode == 1
    messages = [line for line in full.stderr.splitlines() if not line.startswith("curate: ")]
    first, second, _, named, *_, error = messages
    assert first == "4 videos, 0 finished by an earlier run"
    assert re.fullmatch(STARTING, second)
    assert re.match(r"Node .* failed, its videos are tried again: cannot write .*: the disk is full", named)
    assert re.match(r"error: cannot write .*: the disk is full .*Free space", error)
    assert error.endswith("Finished videos are kept: the same command continues.")
    assert not (output / "dataset.json").exists()

    small_disk(100 * 2**20)
    again = build(cluster, few_clips, output)
    assert again.returncode == 0, again.stderr
    assert verify(output) == []


def test_what_is_no_regular_file_is_one_failed_row_at_once(
    cluster: Cluster, few_clips: Path, tmp_path: Path
) -> None:
    os.mkfifo(few_clips / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(few_clips / "socket.mp4"))
        made = build(cluster, few_clips, tmp_path / "mfhq", "run.video_timeout_s=300")

    assert made.returncode == 0, made.stderr
    videos = {video.uri: video for video in Dataset.open(tmp_path / "mfhq").videos()}
    for name in ("pipe.mp4", "socket.mp4"):
        assert (videos[name].status, videos[name].reason) == (Status.FAILED, Reason.NOT_A_REGULAR_FILE)
    assert sum(video.status is Status.ACCEPTED for video in videos.values()) == 3


def test_files_that_are_no_videos_are_failed_rows_whatever_happens_to_their_workers(
    cluster: Cluster, few_clips: Path, tmp_path: Path
) -> None:
    for number in range(320):  # so many that each task of a worker has eight of them
        (few_clips / f"garbage-{number:03}.mp4").write_bytes(b"no video %d" % number)
    output, log = tmp_path / "mfhq", tmp_path / "log"
    running = start_build(cluster, few_clips, output, log=log)
    for count in (20, 120):
        wait_until_staged(output, count, running)
        for process in actors(cluster):
            process.kill()
    assert running.wait(300) == 0, log.read_text()
    text = log.read_text()
    assert " failed, its videos are tried again" not in text
    statuses = Counter((video.status, video.reason) for video in Dataset.open(output).videos())
    assert statuses[Status.FAILED, Reason.UNREADABLE] + statuses[Status.FAILED, Reason.WORKER_CRASHED] == 320
    assert statuses[Status.ACCEPTED, None] == 3
    # The last line of progress has all of them, also those whose results Ray has dropped.
    assert re.findall(r"^curate: (\d+)/324 ", text, re.MULTILINE)[-1] == "324"
    state = read_state(output)
    assert state is not None
    assert sum(state.videos.statuses.values()) == 324


def end_workers(cluster: Cluster) -> None:
    """Wait until Ray has ended the workers of a killed build, which may finish another video before."""
    end = time.monotonic() + 60
    while left := sandboxes(cluster):
        time.sleep(0.1)
        if time.monotonic() > end:
            owners = {parent_of(process) for process in left} - {process.pid for process in left}
            warnings.warn(f"Ray left workers of a killed build behind: {owners}", stacklevel=2)
            for process in descendants(cluster):
                if process.pid in owners:
                    process.kill()
            end = float("inf")


def descendants(cluster: Cluster) -> list[psutil.Process]:
    return psutil.Process(cluster.process.pid).children(recursive=True)


def decoding(cluster: Cluster) -> list[psutil.Process]:
    """The sandboxed processes that decode videos: children of the fork servers."""
    servers = {p.pid for p in sandboxes(cluster)}
    return [p for p in sandboxes(cluster) if parent_of(p) in servers]


def sandboxes(cluster: Cluster) -> list[psutil.Process]:
    """The fork servers of the actors, and their children, which share the command line."""
    return [p for p in descendants(cluster) if "pipeline.sandbox" in command_of(p)]


def parent_of(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def actors(cluster: Cluster) -> list[psutil.Process]:
    """One of the Ray workers that own them; empty when there is none."""
    return [p for p in descendants(cluster) if "MapWorker(FlatMap(Curate))" in command_of(p)][:1]


class signalled:  # noqa: N801 - reads as a statement
    """Within the block, every process that opens a file of this path gets a signal."""

    def __init__(self, cluster: Cluster, path: Path, number: signal.Signals) -> None:
        self._cluster, self._path, self._number = cluster, str(path), number
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            for process in decoding(self._cluster):
                if self._path in open_files(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, self._number)
            time.sleep(0.02)


def open_files(pid: int) -> set[str]:
    try:
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
