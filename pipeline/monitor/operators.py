"""The progress of an operator of a build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.monitor.meter import Meter
from pipeline.monitor.state import OperatorState

Left = Callable[[float], float | None]
"""Seconds that are left, at a time of the monotonic clock."""


@dataclass
class Operator:
    """An operator of the build at work.

    Attributes:
        name: of the operator.
        unit: what is counted.
        total: how many there are; None when not known.
        left: estimates the time that is left; by the rate when None.
        done: how many are done.
        begun: time of the monotonic clock.
        ended: the same; None while it is at work.
    """

    name: str
    unit: str
    total: int | None
    left: Left | None = None
    done: int = 0
    begun: float = 0.0
    ended: float | None = None
    meter: Meter = field(default_factory=Meter)

    def advance(self, done: int, now: float) -> None:
        """Note what is done."""
        self.done = done
        self.meter.add(now, done)

    def left_s(self, now: float) -> float | None:
        """Seconds that are left; None when nothing says so."""
        if self.ended is not None or self.total is None or self.done >= self.total:
            return None
        if self.left is not None:
            return self.left(now)
        rate = self.meter.rate(now)
        return (self.total - self.done) / rate if rate else None

    def state(self, now: float) -> OperatorState:
        """As it is now."""
        left_s = self.left_s(now)
        at_work = self.ended is None
        seconds = (now if self.ended is None else self.ended) - self.begun
        mean = self.done / seconds if seconds > 0 and self.done else None
        per_s = self.meter.rate(now) if at_work else mean
        return OperatorState(
            name=self.name,
            unit=self.unit,
            done=self.done,
            total=self.total,
            seconds=round(seconds, 1),
            per_s=None if per_s is None else round(per_s, 6),
            left_s=None if left_s is None else round(left_s, 1),
        )
