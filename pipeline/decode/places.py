"""Finds the index of a frame by the time of its packet, or by counting where packets carry no times."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.decode.probe import Probe

TICK = 1e-6
"""Seconds; less than the distance between two different times."""


class Places:
    """The indices of a stream's frames.

    Args:
        probe: facts about the video.
        time_base: of its stream, in seconds.
    """

    def __init__(self, probe: Probe, time_base: float) -> None:
        self._times_s = probe.times_s
        self._start_s = probe.start_s
        self._time_base = time_base
        self._used: Counter[int] = Counter()
        self._shown = 0

    def of(self, packet: Any) -> int | None:
        """Index of the frame in a packet; None where frames are found only by counting."""
        if self._start_s is None or packet.pts is None:
            return None
        time_s = float(packet.pts) * self._time_base - self._start_s
        first = int(np.searchsorted(self._times_s, time_s - TICK))
        index = first + self._used[first]
        self._used[first] += 1
        return index

    def lost(self) -> None:
        """A packet failed: where frames are counted, those behind it keep their numbers."""
        self._shown += 1

    def shown(self, index: int | None, hidden: bool) -> int:
        """Index of a frame that is shown, given that of its packet; -1 when an edit list hides it."""
        if hidden:
            return -1
        if self._start_s is not None:
            return -1 if index is None else index
        self._shown += 1
        return self._shown - 1
