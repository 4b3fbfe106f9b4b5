"""Parts of sentences for the user."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 3
"""Examples that a sentence names."""


def such_as(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 video`, `1,200 videos`; an `-y` becomes `-ies`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"
