"""How far a command is, as lines: what is done, the rate, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from settings.units import duration

EVERY_S = 10.0
"""Seconds between two lines."""


class Progress:
    """Counts what is done, and shows it.

    Args:
        what: is done, such as "generated".
        unit: of what is counted, such as "images".
        total: of what this rank counts: its own share, whose lines rank 0 shows, or that of all ranks.
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
        self._started = self._last = clock()
        self.done = 0

    def advance(self, count: int = 1, also: Callable[[], str] | None = None) -> bool:
        """Count so many more.

        Args:
            count: how many.
            also: what else a line says; called only for a line that is shown.

        Returns:
            Whether a line was shown.
        """
        self.done += count
        now = self._clock()
        if now - self._last < EVERY_S and self.done < self._total:
            return False
        self._last = now
        rate = self.done / max(now - self._started, 1e-9)
        unknown = not 0 < self.done < self._total
        left = "" if unknown else f", {duration((self._total - self.done) / rate)} left"
        shown = f"{rate:,.1f}" if rate >= 10 else f"{rate:.3g}"
        more = "" if also is None else f", {also()}"
        self._message(f"{self._what} {self.done:,} of {self._total:,} {self._unit}{more}, {shown}/s{left}")
        return True
