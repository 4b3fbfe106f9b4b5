"""Identities that show what another one shows already: equal files, and other versions of one footage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.people.copies import copies
from pipeline.people.evidence import Indices
from pipeline.people.near_duplicates import Match, near_duplicates
from pipeline.people.search import Pairs
from pipeline.rejection import Rejection
from shards.schema import Reason

PAIRS_AT_ONCE = 20_000
"""Pairs whose footage is compared at a time: each is a Python object meanwhile."""

Bar = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Shows the progress of some work, as `pipeline.progress.Reporter.bar` does."""


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


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs whose footage is compared: those of one person, and those that are very alike.

    Attributes:
        pairs: of rows that are alike.
        person: (N,) of each row.
        least_cosine: pairs of two persons are compared from this on.
    """

    pairs: Pairs
    person: Indices
    least_cosine: float


def same_footage(
    summary: pa.Table, candidates: Candidates, left_out: Collection[int], bar: Bar
) -> list[Duplicate]:
    """Identities whose footage a better one shows: another encoding, size, crop or span of it.

    Args:
        summary: of N identities.
        candidates: the pairs that are compared.
        left_out: rows that are duplicates already.
        bar: shows progress.
    """
    is_left = np.ones(len(summary), bool)
    is_left[list(left_out)] = False
    pairs, person = candidates.pairs, candidates.person
    first, second = pairs.first, pairs.second
    compared = (person[first] == person[second]) | (pairs.cosine >= np.float32(candidates.least_cosine))
    chosen = np.flatnonzero(is_left[first] & is_left[second] & compared)
    # Person by person: the work on a fingerprint is shared by all pairs of a part.
    chosen = chosen[np.argsort(person[first[chosen]], kind="stable")]
    rows = np.unique([first[chosen], second[chosen]])
    rows = rows[np.argsort(person[rows], kind="stable")]
    some = summary.select(["key", "image_bytes", "fingerprint"]).take(pa.array(rows))
    place = np.full(len(summary), -1, np.int64)
    place[rows] = np.arange(len(rows))
    fingerprints = some["fingerprint"].to_pylist()
    matches: list[Match] = []
    with bar("compare footage of pairs", len(chosen)) as advance:
        for start in range(0, len(chosen), PAIRS_AT_ONCE):
            part = chosen[start : start + PAIRS_AT_ONCE]
            matches += near_duplicates(fingerprints, place[np.stack([first[part], second[part]], axis=1)])
            advance(start + len(part), "")
    keys = some["key"].to_pylist()
    row_of = dict(zip(keys, rows.tolist(), strict=True))
    return [
        Duplicate(row_of[key], key, row_of[copy.kept], Rejection(Reason.NEAR_DUPLICATE, copy.detail))
        for key, copy in copies(keys, some["image_bytes"].to_pylist(), matches).items()
    ]
