"""How `mfhq plan` prints a plan: a table for people, or one JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipeline.planning import Plan, Work, shown_hours

UNKNOWN = "unknown"
COLUMNS = ("listed", "found", "missing", "duplicate", "hours", "bytes", "core-hours", "GPU-hours", "disk")
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plan_table(plan: Plan) -> str:
    """A line for each source, one for all of them where there are several, then the notes."""
    rows = [["source", *COLUMNS], *([name, *_cells(work)] for name, work in plan.sources.items())]
    if len(plan.sources) > 1:
        rows.append(["total", *_cells(plan.total)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, "", *plan.notes])


def plan_json(plan: Plan) -> str:
    """The plan as one JSON object; null is unknown."""
    content = {
        "sources": {name: asdict(work) for name, work in plan.sources.items()},
        "total": asdict(plan.total),
        "rates": None if plan.rates is None else str(plan.rates),
        "differences": plan.differences,
        "notes": plan.notes,
    }
    return json.dumps(content, indent=2)


def _cells(work: Work) -> list[str]:
    counts = (work.listed, work.found, work.missing, work.duplicate)
    hours = (_hours(work.core_hours), _hours(work.gpu_hours))
    return [
        *(f"{count:,}" for count in counts),
        _hours(work.hours),
        _size(work.bytes),
        *hours,
        _size(work.disk_bytes),
    ]


def _hours(hours: float | None) -> str:
    return UNKNOWN if hours is None else shown_hours(hours)


def _size(size: float | None) -> str:
    if size is None:
        return UNKNOWN
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"
