"""Progress with rate and time left, as lines on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 10.0
"""Seconds between two lines."""


class Progress:
    """Counts what this rank does; the lines are rank 0's, whose share is as large as that of any other.

    Args:
        what: is done, such as "generated".
        unit: of what is counted, such as "images".
        total: of this rank.
        message: receives the lines.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int,
        message: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._message, self._clock = message, clock
        self._done = 0
        self._started = self._last = clock()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = self._clock()
        last_one = self._done >= self._total
        if not last_one and now - self._last < EVERY_S:
            return
        self._last = now
        seconds = max(now - self._started, 1e-9)
        rate = self._done / seconds
        left = "" if last_one else f", {duration((self._total - self._done) / rate)} left"
        self._message(f"{self._what} {self._done:,} of {self._total:,} {self._unit}, {rate:.3g}/s{left}")


def duration(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
