"""Time limits for calls into the system that cannot be interrupted: a read of a mount whose server is gone.

Such a call waits in the kernel without end, and no signal handler runs. So it runs in a thread of its own, which
is left behind when it does not return in time; what it holds is freed when the process ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import MachineFault
from storage.heartbeat import beat, since_beat_s

T = TypeVar("T")
_Ended = queue.SimpleQueue[tuple[bool, T | BaseException]]


class NoHeartbeat(MachineFault):
    """Work had no heartbeat for too long. Its thread still runs: the process should end."""


def within(limit_s: float, what: str, function: Callable[[], T]) -> T:
    """The result of a function, or what it raises.

    Args:
        limit_s: seconds that it may take.
        what: it accesses, for the message.
        function: the call.

    Raises:
        MachineFault: it took longer; its thread is left behind.
    """
    try:
        return _value(*_started(function).get(timeout=limit_s))
    except queue.Empty:
        raise MachineFault(
            f"{what} does not answer: nothing came back within {limit_s:g} s (run.storage_timeout_s). Check its "
            "mount on this node, then run the same command again; it continues"
        ) from None


def while_beating(limit_s: float, what: str, function: Callable[[], T]) -> T:
    """The result of a function that may take long, or what it raises, as long as its heartbeat goes on.

    Args:
        limit_s: seconds without a beat (`storage.heartbeat`).
        what: it works on, for the message.
        function: the work.

    Raises:
        NoHeartbeat: it was silent for longer; its thread is left behind.
    """
    beat()
    ended = _started(function)
    while (left := limit_s - since_beat_s()) > 0:
        try:
            found = ended.get(timeout=left)
        except queue.Empty:
            continue
        return _value(*found)
    raise NoHeartbeat(
        f"{what}: nothing was read or written for {limit_s:g} s (run.storage_timeout_s). Check the mount of the "
        "output"
    )


def _started(function: Callable[[], T]) -> _Ended[T]:
    """Where the result of a function arrives, which runs in a thread; with False, what it has raised."""
    ended: _Ended[T] = queue.SimpleQueue()

    def call() -> None:
        try:
            ended.put((True, function()))
        except BaseException as error:
            ended.put((False, error))

    threading.Thread(target=call, daemon=True).start()
    return ended


def _value(returned: bool, value: T | BaseException) -> T:
    if returned:
        return value  # type: ignore[return-value]
    assert isinstance(value, BaseException)  # noqa: S101 - by `_started`
    raise value
