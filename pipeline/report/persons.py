"""Persons: how many identities each has, across which sources and splits, and which are the largest.

All are functions of three numbers of each identity (person, source, split): 9 bytes, 1.2 MB at 134,077 identities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.hashed import Hashes
from shards.schema import Split

Numbers = NDArray[np.int32]

SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 49), (50, 99), (100, None))
"""Classes of persons by their number of identities: least and most."""


@dataclass(frozen=True)
class Persons:
    """The person, source and split of N identities, in the order of the images table.

    Attributes:
        person: (N,) number of the person; persons are numbered in the order of their first identities.
        source: (N,) number of the source.
        test: (N,) whether the identity is held out.
        sources: names by number.
    """

    person: Numbers
    source: Numbers
    test: NDArray[np.bool_]
    sources: Sequence[str]

    @property
    def identities(self) -> Numbers:
        """(P,) number of identities of each person."""
        return np.bincount(self.person).astype(np.int32)

    def pairs(self) -> tuple[Numbers, Numbers]:
        """Each person with each of its sources once: (M,) persons, ascending, and (M,) sources."""
        width = max(len(self.sources), 1)
        pairs = np.unique(self.person.astype(np.int64) * width + self.source)
        return (pairs // width).astype(np.int32), (pairs % width).astype(np.int32)


@dataclass(frozen=True)
class SizeRow:
    """The persons with `least` to `most` identities; `most` is None where there is no bound."""

    least: int
    most: int | None
    persons: int
    identities: int


@dataclass(frozen=True)
class SplitRow:
    """The persons and identities of a split."""

    split: Split
    persons: int
    identities: int


@dataclass(frozen=True)
class Combination:
    """The persons that occur in exactly these sources."""

    sources: tuple[str, ...]
    persons: int
    identities: int


@dataclass(frozen=True)
class Group:
    """One person.

    Attributes:
        identities: how many it has.
        sources: name -> identities, the most first.
        splits: those it is in; one, in a sound dataset.
        shown: numbers of some of its identities, spread evenly over all.
    """

    identities: int
    sources: dict[str, int]
    splits: list[Split]
    shown: list[int]


def numbered(names: Hashes) -> Numbers:
    """(N,) numbers of names, given as hashes, in the order in which they first occur."""
    _, first, places = np.unique(names, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int32)
    ranks[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return ranks[places]


def by_size(persons: Persons) -> list[SizeRow]:
    """Persons by their number of identities; classes without persons are left out."""
    counts = persons.identities
    rows = []
    for least, most in SIZES:
        found = counts[(counts >= least) & (counts <= (most or counts.max(initial=0)))]
        if len(found):
            rows.append(SizeRow(least, most, len(found), int(found.sum())))
    return rows


def by_split(persons: Persons) -> tuple[list[SplitRow], int]:
    """Persons of each split, and how many are in both, which is 0 in a sound dataset."""
    parts = {Split.TRAIN: ~persons.test, Split.TEST: persons.test}
    rows = [
        SplitRow(split, len(np.unique(persons.person[part])), int(part.sum()))
        for split, part in parts.items()
    ]
    return rows, sum(row.persons for row in rows) - len(persons.identities)


def by_source(persons: Persons) -> dict[str, int]:
    """Number of persons of each source; a person of several counts in each."""
    counts = np.bincount(persons.pairs()[1], minlength=len(persons.sources))
    return dict(zip(persons.sources, counts.tolist(), strict=True))


def combinations(persons: Persons) -> list[Combination]:
    """Persons that occur in several sources, by the sources; the commonest combination first."""
    of_person, of_source = persons.pairs()
    starts = np.searchsorted(of_person, np.arange(len(persons.identities) + 1))
    several = np.flatnonzero(np.diff(starts) > 1)
    identities = persons.identities
    people: Counter[tuple[int, ...]] = Counter()
    total: Counter[tuple[int, ...]] = Counter()
    for person in several.tolist():
        sources = tuple(of_source[starts[person] : starts[person + 1]].tolist())
        people[sources] += 1
        total[sources] += int(identities[person])
    named = [
        Combination(tuple(sorted(persons.sources[place] for place in sources)), count, total[sources])
        for sources, count in people.items()
    ]
    return sorted(named, key=lambda row: (-row.persons, row.sources))


def largest(persons: Persons, count: int, shown: int) -> list[Group]:
    """The persons with the most identities, of those with at least two; equal ones in the order of the table.

    Args:
        persons: of the dataset.
        count: of groups, at most.
        shown: identities of each group, at most.
    """
    identities = persons.identities
    order = np.argsort(-identities, kind="stable")[:count]
    return [_group(persons, int(person), shown) for person in order if identities[person] > 1]


def _group(persons: Persons, person: int, shown: int) -> Group:
    members = np.flatnonzero(persons.person == person)
    chosen = np.unique(np.linspace(0, len(members) - 1, min(shown, len(members))).round().astype(int))
    of_source = Counter(persons.sources[place] for place in persons.source[members].tolist())
    held_out = persons.test[members]
    return Group(
        identities=len(members),
        sources=dict(sorted(of_source.items(), key=lambda item: (-item[1], item[0]))),
        splits=[split for split in Split if (held_out if split is Split.TEST else ~held_out).any()],
        shown=members[chosen].tolist(),
    )
