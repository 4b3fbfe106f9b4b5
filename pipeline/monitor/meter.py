"""Measures how fast something goes now, and when it ends.

The mean since the start is neither: it holds the start-up and what was long ago. So the rate is that of the last
minutes, longer where less than a few units were done in them.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 120.0
"""The rate is measured over at least this time, once so much has passed."""
LEAST = 20.0
"""And over at least so many units: single ones of very different length say little."""
SPACING_S = 1.0
"""Samples are at least so far apart, so that their number has a limit."""


class Meter:
    """The recent rate of an amount that grows.

    Args:
        window_s: time that the rate covers at least.
        least: amount that the rate covers at least.
    """

    def __init__(self, window_s: float = WINDOW_S, least: float = LEAST) -> None:
        self._window_s = window_s
        self._least = least
        self._samples: deque[tuple[float, float]] = deque()
        self._last = (0.0, 0.0)

    def add(self, now: float, amount: float) -> None:
        """Note the whole amount so far.

        Args:
            now: seconds on a clock that never goes back.
            amount: since the start; the first one that is noted counts as the start.
        """
        # What comes before the first result is start-up.
        if not self._samples or now - self._samples[-1][0] >= SPACING_S:
            self._samples.append((now, amount))
        self._last = (now, amount)
        while len(self._samples) > 2 and self._is_enough(*self._samples[1]):
            self._samples.popleft()

    def _is_enough(self, time: float, amount: float) -> bool:
        now, whole = self._last
        return now - time >= self._window_s and whole - amount >= self._least

    def rate(self, now: float) -> float | None:
        """Amount a second, recently; None before two results. It falls while nothing comes."""
        if not self._samples:
            return None
        since, before = self._samples[0]
        grown = self._last[1] - before
        return grown / (now - since) if grown > 0 and now > since else None
