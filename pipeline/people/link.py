"""Links the identities of one person across videos, origins and sources.

Two groups of identities are joined while the mean cosine over all pairs between them reaches the embedder's
threshold (`pipeline.people.groups`). Beside the faces, three things count: identities of one origin need the lower
threshold of a pair that is likely to show one person; those seen at one time in different places are never joined;
and a person that is in more videos than anyone should be stops the build.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from pipeline.config import People
from pipeline.errors import BuildError
from pipeline.people.evidence import Indices, rows_of_units, seen_at_once, units
from pipeline.people.groups import NO_UNIT, Evidence, group
from pipeline.people.search import Pairs, TooManyPairs, Vectors, pairs_among, similar_pairs

NEAR_MISS = 0.05
"""How far below the threshold pairs are still found, for the report."""


def alike(summary: pa.Table, vectors: Vectors, people: People, least_cosine: float | None = None) -> Pairs:
    """All pairs that may show one person: those near the threshold or above, and alike ones of one origin.

    Args:
        summary: of the identities.
        vectors: their `embeddings`.
        people: its thresholds are set.
        least_cosine: find pairs down to this as well.

    Raises:
        BuildError: the threshold separates nothing.
    """
    least, same_origin = thresholds(people)
    lowest = min(least - NEAR_MISS, least if least_cosine is None else least_cosine)
    try:
        pairs = similar_pairs(vectors, lowest)
        others = pairs_among(rows_of_units(units(summary)), vectors, same_origin - NEAR_MISS)
    except TooManyPairs as error:
        raise BuildError(
            f"people.link_cosine={least:g} and people.same_origin_cosine={same_origin:g} link too much: {error}. "
            "Raise them"
        ) from error
    # Those of one origin that are above the other threshold were found already.
    new = others.cosine < np.float32(lowest)
    first, second = np.append(pairs.first, others.first[new]), np.append(pairs.second, others.second[new])
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], np.append(pairs.cosine, others.cosine[new])[order])


def evidence_of(summary: pa.Table, people: People) -> Evidence:
    """What is known of the identities beside their faces."""
    least, same_origin = thresholds(people)
    return Evidence(units(summary), least - same_origin, seen_at_once(summary))


def of_originals(evidence: Evidence, original: Indices) -> Evidence:
    """The evidence on the rows that are kept, with that on their copies.

    Args:
        evidence: on N rows.
        original: (N,) the row that is kept in place of each.
    """
    unit = np.where(original == np.arange(len(original)), evidence.unit, NO_UNIT)
    for row in np.flatnonzero((original != np.arange(len(original))) & (evidence.unit != NO_UNIT)).tolist():
        if unit[original[row]] == NO_UNIT:
            unit[original[row]] = evidence.unit[row]
    apart = original[evidence.apart.reshape(-1, 2)]
    # Copies of one face in one frame, such as a picture in the picture, say nothing.
    return replace(evidence, unit=unit, apart=apart[apart[:, 0] != apart[:, 1]])


def link(
    summary: pa.Table,
    vectors: Vectors,
    pairs: Pairs,
    people: People,
    *,
    evidence: Evidence | None = None,
    original: Indices | None = None,
) -> Indices:
    """Persons.

    Args:
        summary: of N identities.
        vectors: their `embeddings`.
        pairs: those of `alike`.
        people: its thresholds are set.
        evidence: that of `evidence_of`, where it is known already.
        original: (N,) the row that each is a copy of, else its own. A copy's face is no evidence of a link: it
            has the person of its original.

    Returns:
        (N,) the first row of each row's person, among the originals.

    Raises:
        BuildError: a person is in more videos than `people.max_person_videos`.
    """
    least, _ = thresholds(people)
    evidence = evidence_of(summary, people) if evidence is None else evidence
    rows = np.stack([pairs.first, pairs.second])
    if original is not None:
        evidence = of_originals(evidence, original)
        rows = np.sort(original[rows], axis=0)
        rows = np.unique(rows[:, rows[0] != rows[1]], axis=1)
    alarm = _Alarm(summary, people)
    person = group(vectors, rows[0].astype(np.int32), rows[1].astype(np.int32), least, evidence, check=alarm)
    alarm(person)
    return person if original is None else person[original]


def thresholds(people: People) -> tuple[float, float]:
    """The cosines for two identities, and for two of one origin.

    Raises:
        ValueError: they are not set; `pipeline.thresholds` sets them.
    """
    least, same_origin = people.link_cosine, people.same_origin_cosine
    if least is None or same_origin is None:
        raise ValueError("people.link_cosine and people.same_origin_cosine are not set")
    return least, min(least, same_origin)


class _Alarm:
    """Stops the build when a person is in too many videos; is called with the groups as they grow.

    Args:
        summary: of the identities.
        people: has the limit.
    """

    def __init__(self, summary: pa.Table, people: People) -> None:
        self._keys = summary["key"]
        self._people = people
        names = zip(summary["origin"].to_pylist(), summary["video_id"].to_pylist(), strict=True)
        self._place = np.unique(
            np.array([origin or video for origin, video in names], np.str_), return_inverse=True
        )[1]

    def __call__(self, person: Indices) -> None:
        """Check the groups so far.

        Args:
            person: (N,) first row of each row's group.

        Raises:
            BuildError: one is too large.
        """
        most = self._people.max_person_videos
        sizes = np.bincount(person, minlength=1)
        if sizes.max(initial=0) <= most:
            return
        rows = np.flatnonzero(sizes[person] > most)
        seen = np.unique(np.stack([person[rows], self._place[rows]]), axis=1)
        persons, counts = np.unique(seen[0], return_counts=True)
        if counts.max() > most:
            raise BuildError(self._message(person, persons[counts.argmax()], int(counts.max())))

    def _message(self, person: Indices, largest: int, videos: int) -> str:
        rows = np.flatnonzero(person == largest)
        keys = self._keys.take(pa.array(rows[:: max(1, len(rows) // 3)][:3])).to_pylist()
        people, most = self._people, self._people.max_person_videos
        return (
            f"people: one person would be in {videos:,} videos (those of one origin count as one), with "
            f"{len(rows):,} of {len(person):,} identities, such as {', '.join(keys)}; the most is {most}. "
            "Probably different persons are linked: raise "
            f"people.link_cosine={people.link_cosine:g}. If it is one person, raise people.max_person_videos. The "
            "same command then continues with all finished videos"
        )
