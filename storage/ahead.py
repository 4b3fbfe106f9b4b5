"""Work ahead of the reader: threads compute what comes next, in order and only so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from storage.heartbeat import beat

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], pool: Executor, ahead: int
) -> Iterator[Result]:
    """The results of `function`, in the order of `items`; `Executor.map` would take all items at once.

    Args:
        function: called in the pool. Its error is raised where its result is due.
        items: taken by the caller's thread.
        pool: where it runs.
        ahead: calls that are running or whose results wait, at most.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) >= ahead:
                yield _due(waiting)
            waiting.append(pool.submit(function, item))
        while waiting:
            yield _due(waiting)
    finally:
        for future in waiting:
            future.cancel()


def _due(waiting: deque[Future[Result]]) -> Result:
    result = waiting.popleft().result()
    beat()
    return result
