"""The build's side of the fork server and of the processes it forks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from pipeline.sandbox import protocol
from pipeline.sandbox.confine import Policy
from pipeline.sandbox.zygote import KILL, MOST_REQUEST

START_TIMEOUT_S = 120.0
"""Importing takes a second; on a crowded machine with cold disks, more."""
GRACE_S = 10.0
"""How long a killed process may take to end. One that waits for a lost disk never ends, and is left behind."""
DISK_WAIT_S = 5.0
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR")
"""Environment of the fork server. Other variables hold keys and tokens, which a decoder's memory must not hold."""
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ServerDied(RuntimeError):  # noqa: N818 - names the event
    """The fork server is gone, and its child with it."""


class ChildEnded(Exception):  # noqa: N818 - names the event
    """The decoding process has closed its socket: it ended, or is about to."""


class Child:
    """One decoding process, seen from the build.

    Args:
        pid: for /proc; never used to signal.
        channel: to the process.
        control: to its fork server.
    """

    def __init__(self, pid: int, channel: socket.socket, control: socket.socket) -> None:
        self._pid = pid
        self._channel = channel
        self._control = control

    def send(self, message: bytes, deadline: float) -> None:
        """Send a message.

        Raises:
            TimeoutError: the process does not read.
            ChildEnded: it is gone.
        """
        try:
            self._channel.settimeout(_left(deadline))
            self._channel.send(message)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChildEnded from error

    def receive(self, deadline: float) -> bytes:
        """The next message, at most `protocol.MOST_BYTES` long; descriptors that come with it are closed.

        Raises:
            TimeoutError: none came in time.
            ChildEnded: none will come.
            HostileMessage: it is longer.
        """
        try:
            self._channel.settimeout(_left(deadline))
            try:
                message, _, flags, _ = self._channel.recvmsg(protocol.MOST_BYTES)
            except ConnectionResetError:
                # The process ended before it read all that was sent to it. What it sent itself is still there.
                message, _, flags, _ = self._channel.recvmsg(protocol.MOST_BYTES)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChildEnded from error
        if not message:
            raise ChildEnded
        if flags & socket.MSG_TRUNC:
            raise protocol.HostileMessage("a message is too long")
        return message

    def waits_for_disk(self) -> bool:
        """Whether the process makes no progress because the kernel waits for a disk or a server on its behalf.

        A process that reads from a slow disk waits like this too, but not for long.
        """
        end = time.monotonic() + DISK_WAIT_S
        while time.monotonic() < end:
            if self._state() != "D":
                return False
            time.sleep(0.1)
        return True

    def _state(self) -> str:
        try:
            with open(f"/proc/{self._pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123
                return stat.read().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    def end(self, patience_s: float = 0.0) -> int | None:
        """Wait for the process to end by itself, then kill it.

        Returns:
            Its exit code, negative for a signal; None when it had to be killed.

        Raises:
            ServerDied: the exit code is unknown.
        """
        self._channel.close()
        try:
            alive = not _readable(self._control, patience_s)
            if alive:
                self._control.send(KILL)
            if not _readable(self._control, GRACE_S):
                self._control.close()  # a late answer would be taken for that of the next process
                raise ServerDied
            answer = self._control.recv(MOST_REQUEST)
        except OSError as error:
            raise ServerDied from error
        if not answer:
            raise ServerDied
        code: int = json.loads(answer)["ended"]
        return None if alive else code


class ForkServer:
    """A process that forks decoding processes, one at a time.

    Args:
        entry: the function that they run once confined, as `module:function`.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self, entry: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _start_code(theirs.fileno(), entry)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                cwd="/",
            )
        self._control = ours
        if not _readable(ours, START_TIMEOUT_S) or ours.recv(MOST_REQUEST) != b"ready":
            self.close()
            raise RuntimeError(
                f"the process that starts decoders did not start (exit code {self._process.returncode})"
            )

    def fork(self, policy: Policy, source: int, memory: int) -> Child:
        """Start a process for one video.

        Raises:
            ServerDied: the fork server is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps(dataclasses.asdict(policy)).encode()
        try:
            with theirs:
                socket.send_fds(self._control, [request], [source, memory, theirs.fileno()])
            answer = self._control.recv(MOST_REQUEST) if _readable(self._control, GRACE_S) else b""
            if not answer:
                self._control.close()  # as in `Child.end`
                raise ServerDied
        except OSError as error:
            ours.close()
            raise ServerDied from error
        return Child(json.loads(answer)["started"], ours, self._control)

    def close(self) -> None:
        """End the fork server and its child."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
            return
        self._process.kill()
        self._process.wait()


def _start_code(descriptor: int, entry: str) -> str:
    # The path is passed on, because it may come from anywhere (a working directory of Ray, for example).
    path = [str(Path(entry_of_path).absolute()) for entry_of_path in sys.path]
    return (
        f"import sys; sys.path[:] = {path!r}; "
        f"from {__package__}.zygote import main; main({descriptor}, {entry!r})"
    )


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | dict.fromkeys(_ONE_THREAD, "1")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _readable(control: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
