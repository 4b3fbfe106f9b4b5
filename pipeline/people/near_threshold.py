"""The pairs nearest to the threshold of linking, for people to judge it by looking."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from pipeline.config import People
from pipeline.people.evidence import Indices, units
from pipeline.people.findings import SHOWN_PAIRS, Pair
from pipeline.people.groups import NO_UNIT
from pipeline.people.link import thresholds
from pipeline.people.search import Pairs

ROWS_AT_ONCE = 4096


def near_threshold(
    summary: pa.Table, pairs: Pairs, person: Indices, people: People, kept: Collection[str]
) -> dict[str, list[Pair]]:
    """The pairs nearest to the threshold, at most one of two persons, by their name in `PeopleFindings`.

    Args:
        summary: of N identities.
        pairs: those of `pipeline.people.link.alike`.
        person: (N,) of each identity.
        people: its thresholds are set.
        kept: keys of the identities that the dataset holds.
    """
    least, same_origin = thresholds(people)
    keys = summary["key"].to_pylist()
    is_kept = np.array([key in kept for key in keys], bool)
    unit = units(summary)
    one_origin = (unit[pairs.first] == unit[pairs.second]) & (unit[pairs.first] != NO_UNIT)
    least_cosine = np.where(one_origin, np.float32(same_origin), np.float32(least))
    excess = pairs.cosine - least_cosine
    a, b = person[pairs.first], person[pairs.second]
    both = is_kept[pairs.first] & is_kept[pairs.second]
    kinds = {
        "linked": (both & (a == b) & (excess >= 0), 1),
        "apart": (both & (a != b) & (excess < 0), -1),
        "rejected": (both & (a != b) & (excess >= 0), -1),
    }
    found: dict[str, list[Pair]] = {}
    for kind, (chosen, sign) in kinds.items():
        rows = np.flatnonzero(chosen)
        rows = rows[np.lexsort((rows, sign * excess[rows]))]
        of_two: dict[tuple[int, int], int] = {}
        for start in range(0, len(rows), ROWS_AT_ONCE):
            for row in rows[start : start + ROWS_AT_ONCE].tolist():
                of_two.setdefault((min(a[row], b[row]), max(a[row], b[row])), row)
            if len(of_two) >= SHOWN_PAIRS:
                break
        found[kind] = [
            Pair(
                first=keys[pairs.first[row]],
                second=keys[pairs.second[row]],
                cosine=round(float(pairs.cosine[row]), 4),
                least_cosine=round(float(least_cosine[row]), 4),
            )
            for row in list(of_two.values())[:SHOWN_PAIRS]
        ]
    return found
