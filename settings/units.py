"""Times and rates in the units that people read."""

from __future__ import annotations

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
_PERIODS = (("s", 1.0), ("min", float(MINUTE_S)), ("h", float(HOUR_S)))


def duration(seconds: float) -> str:
    """A time in its two largest units, such as `2 h 05 min`, `3 min 20 s` or `45 s`."""
    whole = max(0, round(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    minutes = round(seconds / MINUTE_S)
    if minutes < DAY_S // MINUTE_S:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / HOUR_S)
    return f"{hours // 24} d {hours % 24} h"


def rate(per_s: float, unit: str) -> str:
    """A rate with a number that is easy to read, such as `3.4 videos/s` or `12 videos/min`."""
    period, length_s = next((each for each in _PERIODS if per_s * each[1] >= 1), _PERIODS[-1])
    amount = per_s * length_s
    shown = f"{amount:,.0f}" if amount >= 10 else f"{amount:.1f}"
    return f"{shown} {unit}/{period}"
