"""Estimates how long the curation of the videos that are left takes.

The largest files come first, so what is left is less than its number says: an estimate by the number of videos is
several times too long. What a video takes is predicted from its length where the source states it, else from the
size of its file, by what finished videos of the same source took. Analysers that work at the same time finish so
many seconds of work in a second; that rate turns the sum of the predictions into time. `benchmarks/time_left.py`
measures how wrong the estimates are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.monitor.meter import Meter
from pipeline.sources.manifest import Video

WINDOW_S = 300.0
"""The rate of work is measured over at least this time: single videos take minutes."""
OVERHEAD = 0.1
"""What a video takes beside what grows with its length, as a share of what one of mean length takes. In two
measured builds estimates were off by 0.24 and 0.43 with 0, by 0.20 and 0.21 with 0.1 (mean relative errors)."""
ENOUGH = 3
"""Finished videos of a source from which on its own figures count."""


def length_of(video: Video) -> tuple[str, float]:
    """What is known of a video's length before it is opened: the unit (s, frames or bytes), and the amount."""
    if video.span_s is not None:
        return "s", video.span_s[1] - video.span_s[0]
    if video.span_frames is not None:
        return "frames", float(video.span_frames[1] - video.span_frames[0] + 1)
    return "bytes", float(video.bytes)


@dataclass
class _Group:
    """Videos of a source whose lengths are in one unit.

    Attributes:
        left: videos that are not finished.
        left_length: sum of their lengths.
        overhead: is added to each length.
        timed: videos that are finished, and whose time is known.
        timed_length: sum of their lengths.
        seconds: that they took.
    """

    left: int = 0
    left_length: float = 0.0
    overhead: float = 0.0
    timed: int = 0
    timed_length: float = 0.0
    seconds: float = 0.0

    def predicted_s(self, all_groups: _Group) -> float:
        """Seconds of work that are left.

        Args:
            all_groups: sums of the groups of this unit, for a group of which too little is finished.
        """
        basis = self if self.timed >= ENOUGH and self.timed_length > 0 else all_groups
        if basis.timed_length > 0:
            return self.left_length * basis.seconds / basis.timed_length
        return 0.0


class WorkLeft:
    """The work of the videos that are not finished.

    Args:
        videos: to curate.
    """

    def __init__(self, videos: Iterable[Video]) -> None:
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._seconds = 0.0
        self._timed = 0
        self._meter = Meter(WINDOW_S)
        for video in videos:
            self._add(video, 1)
        for group in self._groups.values():
            group.overhead = OVERHEAD * group.left_length / group.left
            group.left_length *= 1 + OVERHEAD

    def finish(self, video: Video, seconds: float, now: float) -> None:
        """Note that a video is finished.

        Args:
            video: not finished before.
            seconds: that an analyser took for it; 0 when not known.
            now: time of a clock that never goes back.
        """
        with self._lock:
            group, length = self._add(video, -1)
            if seconds > 0:
                group.timed += 1
                group.timed_length += length
                group.seconds += seconds
                self._timed += 1
            self._seconds += seconds
            self._meter.add(now, self._seconds)

    def lose(self, video: Video) -> None:
        """Note that a finished video is not finished after all."""
        with self._lock:
            self._add(video, 1)

    def _add(self, video: Video, count: int) -> tuple[_Group, float]:
        unit, length = length_of(video)
        group = self._groups.setdefault((video.source, unit), _Group())
        length += group.overhead
        group.left += count
        group.left_length += count * length
        return group, length

    def left_s(self, now: float) -> float | None:
        """Seconds until all are finished; None while nothing says so.

        Args:
            now: on the clock of `finish`.
        """
        with self._lock:
            rate = self._meter.rate(now)
            if not rate or not self._timed:
                return None
            return self._work_s() / rate

    def _work_s(self) -> float:
        """Seconds of work that are left."""
        of_units: dict[str, _Group] = {}
        for (_, unit), group in self._groups.items():
            total = of_units.setdefault(unit, _Group())
            total.timed += group.timed
            total.timed_length += group.timed_length
            total.seconds += group.seconds
        mean_s = self._seconds / self._timed
        return sum(
            # Nothing of this unit is finished yet: as long as the others.
            group.predicted_s(of_units[unit]) if of_units[unit].timed else group.left * mean_s
            for (_, unit), group in self._groups.items()
        )
