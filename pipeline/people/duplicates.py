"""Identities that show what another one shows already: equal files, and other versions of one footage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.people.copies import copies
from pipeline.people.near_duplicates import near_duplicates
from pipeline.people.search import Pairs
from pipeline.rejection import Rejection
from shards.schema import Reason

PAIRS_AT_ONCE = 100_000
"""Pairs whose footage is compared at a time: each is a Python object meanwhile."""


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
    """Identities of a video with the bytes, span and box of an earlier one; a file may hold many clips.

    Args:
        summary: of the identities.
    """
    names = ("content", "video_id", "track", "key")
    rows = sorted(zip(*(summary[name].to_pylist() for name in names), range(len(summary)), strict=True))
    first: dict[str, str] = {}
    tracks: dict[str, dict[int, int]] = defaultdict(dict)
    found = []
    for content, video, track, key, row in rows:
        kept = first.setdefault(content, video)
        if kept == video:
            tracks[content][track] = row
            continue
        # Other versions of libraries, whose results a build may mix, can number the tracks differently.
        original = tracks[content].get(track, min(tracks[content].values()))
        found.append(
            Duplicate(row, key, original, Rejection(Reason.DUPLICATE_VIDEO, f"same content as {kept}"))
        )
    return found


def same_footage(summary: pa.Table, pairs: Pairs, left_out: Collection[int]) -> list[Duplicate]:
    """Identities whose footage a better one shows: another encoding, size, crop or span of it.

    Args:
        summary: of the identities.
        pairs: of rows that may show one person; others are not compared.
        left_out: rows that are duplicates already.
    """
    is_left = np.ones(len(summary), bool)
    is_left[list(left_out)] = False
    chosen = is_left[pairs.first] & is_left[pairs.second]
    candidates = np.stack([pairs.first[chosen], pairs.second[chosen]], axis=1).astype(np.int64)
    # Of those that are compared alone: the fingerprints of all are half a gigabyte.
    rows, places = np.unique(candidates, return_inverse=True)
    some = summary.select(["key", "image_bytes", "fingerprint"]).take(pa.array(rows))
    fingerprints, compared = some["fingerprint"].to_pylist(), places.reshape(-1, 2)
    matches = [
        match
        for start in range(0, len(compared), PAIRS_AT_ONCE)
        for match in near_duplicates(fingerprints, compared[start : start + PAIRS_AT_ONCE])
    ]
    keys = some["key"].to_pylist()
    row_of = dict(zip(keys, rows.tolist(), strict=True))
    return [
        Duplicate(row_of[key], key, row_of[copy.kept], Rejection(Reason.NEAR_DUPLICATE, copy.detail))
        for key, copy in copies(keys, some["image_bytes"].to_pylist(), matches).items()
    ]
