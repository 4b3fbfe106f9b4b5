"""Threads that take work from a queue.

`concurrent.futures` makes a future, a lock and a condition for each piece of work, and keeps the process from
ending while a thread waits; here a piece of work costs one put and one get.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
PATIENCE_S = 15.0
"""How long `close` waits for work under way: longer than a stalled connection lasts, but a read from a mount whose
server has gone may never return."""


class Workers(Generic[T]):
    """Some threads that do one kind of work; they end with `close`, with this object, or with the process."""

    def __init__(self, name: str, threads: int, work: Callable[[T], None]) -> None:
        """Start the threads.

        Args:
            name: of the threads, as debuggers show it.
            threads: how many.
            work: done for each item; must not raise.
        """
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._stopped = threading.Event()
        # Daemons, because Python joins other threads before anything could tell them to end.
        self._threads = [
            threading.Thread(
                target=_run, args=(self._queue, self._stopped, work), name=f"{name}-{number}", daemon=True
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._queue, self._stopped, self._threads)

    def put(self, item: T) -> None:
        """Hand work to the next free thread."""
        self._queue.put(item)

    def close(self) -> None:
        """Forget the work that has not begun, and wait for the rest; work that never ends is left behind."""
        self._finalizer()


def _run(queue: SimpleQueue[T | None], stopped: threading.Event, work: Callable[[T], None]) -> None:
    while (item := queue.get()) is not None and not stopped.is_set():
        work(item)


def _stop(queue: SimpleQueue[T | None], stopped: threading.Event, threads: list[threading.Thread]) -> None:
    stopped.set()
    for _ in threads:
        queue.put(None)
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
