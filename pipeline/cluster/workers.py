"""Where the tasks of packing and verifying run: in this process, or in several of this machine.

A task is a function of one item. Its result is small, and at most a window of tasks is under way, so the driver
does not grow with the dataset. `pipeline.cluster.on_ray` runs tasks on a cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from pipeline.errors import BuildError
from pipeline.time_limit import NoHeartbeat, while_beating

Item = TypeVar("Item")
Result = TypeVar("Result")

MANY_SHARDS = 4
"""From so many shards on, other processes write and check them: they take seconds to start."""
LOOK_S = 1.0
"""While tasks run, the lock is checked this often, in seconds."""
PER_CPU = 2
"""Tasks under way for each CPU: one runs, one waits beside it."""
HEARTBEAT_TIMEOUT_S = 120.0
"""A task that reads and writes nothing for so long is given up; builds have `run.storage_timeout_s`."""
LEAVE_S = 1.0
"""A process with a thread that hangs ends so long after it has reported."""


@runtime_checkable
class Labelled(Protocol):
    """An item that messages can name."""

    @property
    def label(self) -> str:
        """Its name."""
        ...


def label_of(item: object, number: int) -> str:
    """The name of a task, which works on the item with this number."""
    return item.label if isinstance(item, Labelled) else f"task {number + 1}"


class Workers(Protocol):
    """Runs tasks."""

    @property
    def alone(self) -> bool:
        """Whether a task has all CPUs of its machine for itself."""
        ...

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        """The results, as they come, each with the place of its item.

        Args:
            function: can be pickled.
            items: taken as tasks are started.
            check: called at least once a task and every `LOOK_S` seconds; what it raises ends the tasks.

        Raises:
            Exception: what the function has raised.
        """
        ...


class InProcess:
    """Runs tasks one after another in this process; right for few, which use several threads."""

    alone = True

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        """As `Workers.run`."""
        for number, item in enumerate(items):
            check()
            yield number, function(item)


class Processes:
    """Runs tasks in processes of this machine, which end with the tasks.

    Args:
        count: of processes; one for each CPU when None.
        timeout_s: seconds without access to a file (`storage.heartbeat`) after which a task is given up.
    """

    alone = False

    def __init__(self, count: int | None = None, timeout_s: float = HEARTBEAT_TIMEOUT_S) -> None:
        self.count = count or len(os.sched_getaffinity(0))
        self._timeout_s = timeout_s

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        """As `Workers.run`.

        Raises:
            BuildError: a process was killed, or a task was silent for too long.
        """
        # Not forked: the threads of libraries do not survive it.
        context = multiprocessing.get_context("spawn")
        with _deaths_named(), ProcessPoolExecutor(self.count, context, initializer=_begin) as pool:
            running: dict[Future[Result], int] = {}
            following = enumerate(items)
            try:
                while True:
                    while len(running) < PER_CPU * self.count and (item := next(following, None)):
                        label = label_of(item[1], item[0])
                        running[pool.submit(_limited, function, self._timeout_s, label, item[1])] = item[0]
                    if not running:
                        return
                    check()
                    done, _ = wait(running, LOOK_S, FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _deaths_named() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise BuildError(
            "a worker process was killed; this machine may be short of memory. Run the same command again; it "
            "continues"
        ) from error


def _limited(function: Callable[[Item], Result], timeout_s: float, label: str, item: Item) -> Result:
    """A task in its process, which ends soon after a task that hangs: nothing else ends a thread of its."""
    try:
        return while_beating(timeout_s, label, partial(function, item))
    except NoHeartbeat as error:
        threading.Timer(LEAVE_S, os._exit, [1]).start()
        raise BuildError(f"{error}, then run the same command again; it continues") from None


def _begin() -> None:
    """Prepare a process: the driver handles Ctrl-C, and this one ends when the driver does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    driver = multiprocessing.parent_process()

    def watch() -> None:
        if driver is not None:
            driver.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
