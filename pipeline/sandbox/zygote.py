"""The fork server: has imported the decoders, touches no video, and forks one fresh process for each.

This way a new process for every video costs some milliseconds instead of the second that imports take, and
a decoder that a video has taken over never meets another video. It has one thread, so forking is safe.

`server.py` starts it. Over its socket come requests, each with three descriptors: the video, the shared memory and
the child's socket. It answers `started` with the process id and `ended` with the exit code. It ends with the
socket, and its child with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.sandbox.attempts import OUT_OF_MEMORY_EXIT
from pipeline.sandbox.confine import Policy, confine
from pipeline.sandbox.decoding import preload
from pipeline.sandbox.limits import end_with_parent
from pipeline.sandbox.protocol import write_json

MOST_REQUEST = 4096
KILL = b"kill"
FAILED = 70
"""Exit code of a child that could not start, or whose own code failed."""
Entry = Callable[[socket.socket, int, int], None]
"""The function that a child runs once it is confined, with its socket, the video and the shared memory."""


def main(descriptor: int, entry: str) -> None:
    """Serve until the parent is gone.

    Args:
        descriptor: of the socket to the parent.
        entry: what children run, as `module:function`.
    """
    preload()
    module, function = entry.split(":")
    run: Entry = getattr(importlib.import_module(module), function)
    control = socket.socket(fileno=descriptor)
    # An interrupt at the terminal is for the build, which then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alarm = _wake_on_child_exit()
    if (threads := len(os.listdir("/proc/self/task"))) != 1:  # noqa: PTH208
        raise RuntimeError(f"{threads} threads run; a process with threads must not fork")
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it looks at
    control.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MOST_REQUEST, 3)
        if not request:
            return
        if request == KILL:  # the child ended by itself just before
            continue
        own = os.getpid()
        pid = os.fork()
        if pid == 0:
            _child(json.loads(request), own, descriptors, run)
        for each in descriptors:
            os.close(each)
        control.send(json.dumps({"started": pid}).encode())
        code = _wait(pid, control, alarm)
        if code is None:
            return
        control.send(json.dumps({"ended": code}).encode())


def _child(policy: dict[str, Any], server: int, descriptors: list[int], run: Entry) -> NoReturn:
    """The life of one decoding process; does not return."""
    code = FAILED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_with_parent(server)
        source, memory, channel = descriptors
        parent = socket.socket(fileno=channel)
        enforced = confine(Policy(**policy), source, (source, memory, channel))
        parent.send(write_json(b"C", enforced.to_json()))
        run(parent, source, memory)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY_EXIT
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(code)


def _wake_on_child_exit() -> int:
    """A descriptor that becomes readable when a child ends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _wait(pid: int, control: socket.socket, alarm: int) -> int | None:
    """Wait for a child, which the parent may ask to kill.

    Returns:
        Its exit code, negative for a signal; None when the parent is gone.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(alarm, select.POLLIN)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        for descriptor, _ in poll.poll():
            if descriptor == alarm:
                with contextlib.suppress(BlockingIOError):
                    os.read(alarm, 512)
                continue
            asked = control.recv(MOST_REQUEST)
            os.kill(pid, signal.SIGKILL)
            if not asked:
                return None
