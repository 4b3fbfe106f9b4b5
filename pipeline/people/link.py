"""Links the identities of one person across videos, origins and sources.

Two groups of identities are joined while the mean cosine over all pairs between them reaches the embedder's
threshold (`pipeline.people.groups`). Beside the faces, three things count: identities of one origin need the lower
threshold of a pair that is likely to show one person; those seen at one time in different places are never joined;
and a person that is in more videos than anyone should be stops the build.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from pipeline.config import People
from pipeline.errors import BuildError
from pipeline.people.evidence import Indices, pairs_within, seen_at_once, units
from pipeline.people.findings import SHOWN_PAIRS, Pair
from pipeline.people.groups import Evidence, group
from pipeline.people.search import Pairs, TooManyPairs, similar_pairs
from pipeline.people.summary import embeddings

NEAR_MISS = 0.05
"""How far below the threshold pairs are still found: for the report, and as they may show the same footage."""


def alike(summary: pa.Table, people: People) -> Pairs:
    """All pairs that may show one person: those near the threshold or above, and alike ones of one origin.

    Args:
        summary: of the identities.
        people: its thresholds are set.

    Raises:
        BuildError: the threshold separates nothing.
    """
    least, same_origin = thresholds(people)
    vectors = embeddings(summary)
    try:
        pairs = similar_pairs(vectors, least - NEAR_MISS)
    except TooManyPairs as error:
        raise BuildError(f"people.link_cosine={least:g} links too much: {error}. Raise it") from error
    others = pairs_within(units(summary), vectors, same_origin)
    if not len(others):
        return pairs
    rows = np.stack([np.append(pairs.first, others.first), np.append(pairs.second, others.second)])
    _, once = np.unique(rows, axis=1, return_index=True)
    return Pairs(rows[0, once], rows[1, once], np.append(pairs.cosine, others.cosine)[once])


def link(summary: pa.Table, pairs: Pairs, people: People) -> Indices:
    """Persons.

    Args:
        summary: of N identities.
        pairs: those of `alike`.
        people: its thresholds are set.

    Returns:
        (N,) the first row of each row's person.

    Raises:
        BuildError: a person is in more videos than `people.max_person_videos`.
    """
    least, same_origin = thresholds(people)
    evidence = Evidence(units(summary), max(0.0, least - same_origin), seen_at_once(summary))
    person = group(embeddings(summary), pairs, least, evidence)
    _check_size(summary, person, people)
    return person


def thresholds(people: People) -> tuple[float, float]:
    """The cosines for two identities, and for two of one origin.

    Raises:
        ValueError: they are not set; `pipeline.thresholds` sets them.
    """
    least, same_origin = people.link_cosine, people.same_origin_cosine
    if least is None or same_origin is None:
        raise ValueError("people.link_cosine and people.same_origin_cosine are not set")
    return least, min(least, same_origin)


def _check_size(summary: pa.Table, person: Indices, people: People) -> None:
    names = zip(summary["origin"].to_pylist(), summary["video_id"].to_pylist(), strict=True)
    _, place = np.unique(np.array([origin or video for origin, video in names], np.str_), return_inverse=True)
    persons, counts = np.unique(np.unique(np.stack([person, place]), axis=1)[0], return_counts=True)
    if counts.max(initial=0) <= people.max_person_videos:
        return
    rows = np.flatnonzero(person == persons[counts.argmax()])
    keys = summary["key"].take(pa.array(rows[:: max(1, len(rows) // 3)][:3])).to_pylist()
    more = int((counts > people.max_person_videos).sum()) - 1
    raise BuildError(
        f"people: one person would be in {counts.max():,} videos of different origin, with {len(rows):,} of "
        f"{len(person):,} identities, such as {', '.join(keys)}; the most is people.max_person_videos="
        f"{people.max_person_videos}{f' ({more:,} more exceed it)' if more else ''}. Probably different persons "
        f"are linked: raise people.link_cosine={people.link_cosine:g}. If it is one person, raise "
        "people.max_person_videos. The same command then continues with all finished videos"
    )


def near_threshold(
    summary: pa.Table, pairs: Pairs, person: Indices, people: People, kept: Collection[str]
) -> dict[str, list[Pair]]:
    """The pairs nearest to the threshold, at most one of two persons, by their name in `PeopleFindings`.

    Args:
        summary: of N identities.
        pairs: those of `alike`.
        person: (N,) of each identity.
        people: its thresholds are set.
        kept: keys of the identities that the dataset holds.
    """
    least, _ = thresholds(people)
    keys = summary["key"].to_pylist()
    is_kept = np.array([key in kept for key in keys], bool)
    a, b = person[pairs.first], person[pairs.second]
    both = is_kept[pairs.first] & is_kept[pairs.second]
    reaches = pairs.cosine >= np.float32(least)
    kinds = {
        "linked": (both & (a == b) & reaches, 1),
        "apart": (both & (a != b) & ~reaches, -1),
        "refused": (both & (a != b) & reaches, -1),
    }
    found: dict[str, list[Pair]] = {}
    for kind, (chosen, sign) in kinds.items():
        rows = np.flatnonzero(chosen)
        rows = rows[np.lexsort((rows, sign * pairs.cosine[rows]))]
        of_two: dict[tuple[int, int], Pair] = {}
        for row in rows.tolist():
            if len(of_two) == SHOWN_PAIRS:
                break
            first, second = keys[pairs.first[row]], keys[pairs.second[row]]
            pair = Pair(first=first, second=second, cosine=round(float(pairs.cosine[row]), 4))
            of_two.setdefault((min(a[row], b[row]), max(a[row], b[row])), pair)
        found[kind] = list(of_two.values())
    return found
