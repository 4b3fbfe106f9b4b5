"""Identities that show what another one shows already: videos of equal content."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline.rejection import Rejection
from shards.schema import Reason


@dataclass(frozen=True)
class Duplicate:
    """An identity that is left out.

    Attributes:
        row: of the identity.
        key: of the identity.
        original: row of the one that is kept.
        rejection: names it.
    """

    row: int
    key: str
    original: int
    rejection: Rejection


def same_content(summary: pa.Table) -> list[Duplicate]:
    """Identities of a video with the bytes, span and box of an earlier one; a file may hold many clips."""
    names = ("content", "video_id", "track", "key")
    rows = sorted(zip(*(summary[name].to_pylist() for name in names), range(len(summary)), strict=True))
    first: dict[str, str] = {}
    original: dict[tuple[str, int], int] = {}
    found = []
    for content, video, track, key, row in rows:
        kept = first.setdefault(content, video)
        if kept == video:
            original[content, track] = row
        else:
            rejection = Rejection(Reason.DUPLICATE_VIDEO, f"same content as {kept}")
            found.append(Duplicate(row, key, original[content, track], rejection))
    return found
