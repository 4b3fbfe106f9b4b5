"""Rows of the summary without a build: identities whose faces are given by an angle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import People
from pipeline.people.summary import SUMMARY

PEOPLE = People(link_cosine=0.5, same_origin_cosine=0.3)


def at(degrees: float) -> list[float]:
    """A unit vector; the cosine of two is that of the angle between them."""
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def identity(video: str, track: int = 0, degrees: float = 0.0, **facts: Any) -> dict[str, Any]:
    """A row; `facts` are values of other columns."""
    row = dict.fromkeys(SUMMARY.names)
    return (
        row
        | {
            "key": f"{video}_{track:02d}",
            "video_id": f"clips/{video}",
            "track": track,
            "seen_with": [],
            "embedding": at(degrees),
            "quality": -1.0,
            "image_bytes": 80_000.0,
            "fingerprint": b"",
            "content": video,
        }
        | facts
    )


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """A summary."""
    return pa.Table.from_pylist(rows, SUMMARY).sort_by("key")
