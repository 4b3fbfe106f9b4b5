"""Groups of images of one person that stand for identities of the pipeline, and the cosines between groups.

A group's embedding is the mean of its images' unit vectors, as the pipeline's is of an identity's eight. Groups
of one person share no image, so a pair of them is a genuine pair; pairs of two persons are impostor pairs. Each
pair of persons has the same weight however many groups they have, because two pairs of groups of the same two
persons are hardly independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.types import Floats

IMAGES = 8
"""Images of an identity."""
FRONTAL_DEG = 15.0
"""Most absolute yaw of an image in a frontal group."""
TURNED_DEG = 30.0
"""Least absolute yaw of an image in a turned group."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """G groups of images.

    Attributes:
        members: (G, n) rows of the images.
        person: (G,) number of the person.
        yaw: (G,) mean yaw in degrees.
        side: (G,) 0 and 1 where genuine pairs are only those of two sides (frontal and turned), else all -1.
    """

    members: Ints
    person: Ints
    yaw: Floats
    side: Ints

    def embeddings(self, vectors: Floats) -> Floats:
        """(G, D) unit vectors of the groups, of (N, D) unit vectors of the images."""
        means = vectors[self.members].mean(axis=1)
        unit: Floats = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
        return unit


@dataclass(frozen=True)
class Cosines:
    """Cosines of pairs of groups, and the persons.

    Attributes:
        values: (P,) cosine.
        persons: (P, 2) persons of the two; equal in a genuine pair, else the lower number first.
        groups: (P, 2) rows of the groups.
    """

    values: Floats
    persons: Ints
    groups: Ints

    def weights(self) -> NDArray[np.float64]:
        """(P,) weights with sum 1 in which each pair of persons counts once; of genuine pairs, each person."""
        _, which, pairs = np.unique(self.pair_of_persons, return_inverse=True, return_counts=True)
        weights = 1.0 / pairs[which]
        return np.asarray(weights / weights.sum(), np.float64)

    @property
    def pair_of_persons(self) -> Ints:
        """(P,) a number for each pair of persons."""
        numbers: Ints = self.persons[:, 0] * (int(self.persons.max(initial=0)) + 1) + self.persons[:, 1]
        return numbers


def random_groups(person: Ints, yaw: Floats, size: int, seed: int, most: int | None = None) -> Groups:
    """Images of each person in random order, `size` at a time; a remainder is left out.

    Args:
        person: (N,) of each image.
        yaw: (N,) of each image, in degrees.
        size: images of a group.
        seed: of the order.
        most: groups of a person; all when not given.
    """
    random = np.random.default_rng(seed)
    return _consecutive(person, yaw, size, lambda rows: random.permutation(rows)[: most and most * size])


def groups_by_pose(person: Ints, yaw: Floats, size: int) -> Groups:
    """Images of each person from turned left to turned right, `size` at a time: each group is of one pose."""
    return _consecutive(person, yaw, size, lambda rows: rows[np.argsort(yaw[rows], kind="stable")])


def turned_and_frontal(person: Ints, yaw: Floats, size: int, seed: int) -> Groups:
    """Groups of strongly turned images (side 1) and of frontal ones (side 0) of each person who has both."""
    random = np.random.default_rng(seed)
    members: list[Ints] = []
    sides: list[int] = []
    for one in np.unique(person):
        rows = np.flatnonzero((person == one) & np.isfinite(yaw))
        turned = random.permutation(rows[np.abs(yaw[rows]) >= TURNED_DEG])
        frontal = random.permutation(rows[np.abs(yaw[rows]) <= FRONTAL_DEG])
        if len(turned) >= size and len(frontal) >= size:
            for side, some in ((0, frontal), (1, turned)):
                chunks = _chunks(some, size)
                members += chunks
                sides += [side] * len(chunks)
    return _groups(members, person, yaw, np.array(sides, np.int64), size)


def _consecutive(person: Ints, yaw: Floats, size: int, order: Callable[[Ints], Ints]) -> Groups:
    members: list[Ints] = []
    for one in np.unique(person):
        members += _chunks(order(np.flatnonzero((person == one) & np.isfinite(yaw))), size)
    return _groups(members, person, yaw, np.full(len(members), -1, np.int64), size)


def _chunks(rows: Ints, size: int) -> list[Ints]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _groups(members: list[Ints], person: Ints, yaw: Floats, side: Ints, size: int) -> Groups:
    rows = np.array(members, np.int64).reshape(-1, size)
    return Groups(rows, person[rows[:, 0]], yaw[rows].mean(axis=1), side)


def genuine(groups: Groups, vectors: Floats) -> Cosines:
    """Cosines of all pairs of groups of one person; of the two sides only, where groups have sides."""
    means = groups.embeddings(vectors)
    first, second = np.triu_indices(len(means), k=1)
    same = groups.person[first] == groups.person[second]
    across = (groups.side[first] < 0) | (groups.side[first] != groups.side[second])
    return _cosines(groups, means, first[same & across], second[same & across])


def impostor(groups: Groups, vectors: Floats) -> Cosines:
    """Cosines of all pairs of groups of two persons."""
    means = groups.embeddings(vectors)
    first, second = np.triu_indices(len(means), k=1)
    different = groups.person[first] != groups.person[second]
    return _cosines(groups, means, first[different], second[different])


def _cosines(groups: Groups, means: Floats, first: Ints, second: Ints) -> Cosines:
    values = (means @ means.T)[first, second]
    persons = np.sort(np.stack([groups.person[first], groups.person[second]], axis=1), axis=1)
    return Cosines(values, persons.reshape(-1, 2), np.stack([first, second], axis=1).reshape(-1, 2))
