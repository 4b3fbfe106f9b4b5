"""Measures the time of a video: seconds by step, for the report."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.monitor import logs

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the seconds spent in named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` block."""
        start = time.perf_counter()
        before = logs.enter_stage(name)
        try:
            yield
        finally:
            logs.leave_stage(before)
            self.seconds[name] += time.perf_counter() - start

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Count the time that a generator takes to make its items, without the time of its consumer."""
        iterator = iter(items)
        while True:
            with self.step(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
