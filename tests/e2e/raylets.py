"""A real Ray cluster of several raylets on this machine, whose nodes join and are killed, and builds on it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from builds import REPOSITORY, SCRIPTS, WORKFLOW

GIB = 2**30
STORE_BYTES = 80 * 2**20
CLONE_FS, CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x200, 0x20000, 0x4000, 1 << 18


class Raylets:
    """A cluster whose head runs no actor; every other node is a raylet of its own."""

    def __init__(self) -> None:
        from ray._common.utils import get_default_ray_temp_dir
        from ray.cluster_utils import Cluster

        # Cluster writes its address there, and does not make the directory where no one used Ray before.
        Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)
        # Ray's sockets are in this folder, and the path of a socket may have 107 characters only.
        self._folder = tempfile.mkdtemp(prefix="ray")
        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "temp_dir": self._folder,
                # A lost node is known after 3 s; by default only after 15, when these builds have ended.
                "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 3},
            },
        )

    def add(self, cpus: int = 1, gpus: int = 0, memory: int = 8 * GIB) -> Any:
        """Start a node."""
        return self._cluster.add_node(
            num_cpus=cpus, num_gpus=gpus, memory=memory, object_store_memory=STORE_BYTES
        )

    def kill(self, node: Any) -> None:
        """End a node as a power cut does: its raylet and workers, at once."""
        self._cluster.remove_node(node, allow_graceful=False)

    def start_build(self, clips: Path, output: Path, *more: str, log: Path) -> subprocess.Popen[bytes]:
        """Start `mfhq build` of the demo's workflow."""
        command = [str(SCRIPTS / "python"), "pipeline/build_mfhq.py", WORKFLOW, f"source.path={clips}"]
        return subprocess.Popen(
            [*command, f"output={output}", *more],
            cwd=REPOSITORY,
            env=os.environ | {"RAY_ADDRESS": self._cluster.address, "PYTHONPATH": str(REPOSITORY)},
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def raylets() -> Iterator[Raylets]:
    """A cluster for the time of the block."""
    cluster = Raylets()
    try:
        yield cluster
    finally:
        cluster.close()


@contextlib.contextmanager
def mounted_over(folder: Path, kind: Literal["empty", "hung"]) -> Iterator[None]:
    """Processes that start within the block see something else at a directory, for as long as they live.

    Args:
        folder: the directory.
        kind: `empty`, as where a share is not mounted; `hung`, as where its server does not answer.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments):
            pytest.skip(f"{name}: {os.strerror(ctypes.get_errno())}")

    own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    call("unshare", CLONE_NEWNS)
    try:
        call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        if kind == "empty":
            call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, b"size=4k")
        else:
            server = os.open("/dev/fuse", os.O_RDWR)  # never answers; it ends with this process
            options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
            call("mount", b"hung", os.fsencode(folder), b"fuse", 0, options)
        yield
    finally:
        call(
            "unshare", CLONE_FS
        )  # threads that were started meanwhile share it, and setns refuses a shared one
        call("setns", own, CLONE_NEWNS)
        os.close(own)


def finished(process: subprocess.Popen[bytes], log: Path, timeout_s: float = 300) -> str:
    """The log of a build that ends well."""
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the build hangs:\n{log.read_text()}")
    text = log.read_text()
    assert code == 0, text
    return text


def analysers(node: Any = None) -> list[psutil.Process]:
    """The actors of all builds on the clusters that this process has started.

    Args:
        node: only those of this node.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if "MapWorker(FlatMap(Curate))" in line and (node is None or process.ppid() == raylet(node)):
                found.append(process)
    return found


def raylet(node: Any) -> int:
    """The process of a node's raylet, whose children are the node's workers."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def text_of(path: Path) -> str:
    """The content of a file that may have been removed meanwhile."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def suspend_at_work(node: Any, output: Path, build: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    """Suspend the analyser of a node while it is at work on a video."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends and build.poll() is None:
        for analyser in analysers(node):
            analyser.suspend()
            if any(node.node_id in text_of(path) for path in output.glob(".staging/*/starts/*")):
                return
            analyser.resume()
        time.sleep(0.05)
    pytest.fail("the node's analyser was at work on no video")
