"""Groups of identities that the split must not separate: they share a person, a video or an origin.

An origin, such as a YouTube id, is the same in all sources, so clips of one download are in one group even if two
datasets cut them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DRAW_BITS = 53
"""Bits of a draw: as many as a float holds, so that none is rounded to 1."""


@dataclass(frozen=True, eq=False)
class Groups:
    """N identities, sorted by key, in G groups, numbered in the order of their first keys.

    Attributes:
        identities: the rows, with the columns key, video_id, content and origin.
        label: (N,) number of each row's group.
        videos: (G,) number of videos that the dataset holds.
        is_kept: (N,) rows that the dataset holds.
    """

    identities: pa.Table
    label: NDArray[np.int64]
    videos: NDArray[np.int64]
    is_kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.videos)

    def any_of(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(G,) groups with at least one of some rows, given as (N,)."""
        found = np.zeros(len(self), dtype=np.bool_)
        found[self.label[rows]] = True
        return found

    def values(self, column: str, rows: NDArray[np.bool_]) -> list[str]:
        """The distinct values of a column in some rows, sorted; null is none."""
        found = pc.unique(self.identities[column].filter(pa.array(rows))).drop_null()
        return sorted(found.to_pylist())

    def of(self, group: int) -> NDArray[np.bool_]:
        """(N,) the rows of a group that the dataset holds."""
        mask: NDArray[np.bool_] = (self.label == group) & self.is_kept
        return mask


def find_groups(identities: pa.Table, persons: NDArray[np.int64], is_kept: NDArray[np.bool_]) -> Groups:
    """Connected components through person, video and origin.

    Args:
        identities: N rows sorted by key, with the columns key, video_id, content and origin (null where unknown).
        persons: (N,) label of each row's person.
        is_kept: (N,) rows that the dataset holds.
    """
    count = len(identities)
    if not count:
        return Groups(identities, np.zeros(0, np.int64), np.zeros(0, np.int64), is_kept)
    rows = np.arange(count)
    videos = codes(identities["video_id"])
    first, second, nodes = [], [], count
    for tie in (np.unique(persons, return_inverse=True)[1], videos, codes(identities["origin"])):
        known = tie >= 0
        first.append(rows[known])
        second.append(tie[known] + nodes)
        nodes += int(tie.max(initial=-1)) + 1
    ends = (np.concatenate(first), np.concatenate(second))
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(nodes, nodes))
    components = connected_components(graph, directed=False)[1][:count]
    # Numbered by first row, so that the numbers do not depend on the order in which scipy visits the nodes.
    _, first_row, inverse = np.unique(components, return_index=True, return_inverse=True)
    number = np.empty(len(first_row), dtype=np.int64)
    number[np.argsort(first_row)] = np.arange(len(first_row))
    label = number[inverse]
    kept_rows = np.flatnonzero(is_kept)
    first_of_video = kept_rows[np.unique(videos[kept_rows], return_index=True)[1]]
    sizes = np.bincount(label[first_of_video], minlength=len(number))
    return Groups(identities, label, sizes, is_kept)


def least_draws(groups: Groups, seed: int) -> NDArray[np.float64]:
    """(G,) the least draw of each group's units, in [0, 1).

    A unit is an origin, or a video whose origin is unknown. Its draw depends on nothing but the seed and its name,
    so the least draw of a group can only fall when the group gains units.
    """
    video, origin = groups.identities["video_id"], groups.identities["origin"]
    is_known = pc.is_valid(origin).to_numpy(zero_copy_only=False)
    draws = np.ones(len(groups.identities))
    for kind, column, rows in (("origin", origin, is_known), ("video", video, ~is_known)):
        units = column.filter(pa.array(rows)).combine_chunks().dictionary_encode()
        of_unit = _draws(units.dictionary.to_pylist(), kind, seed)
        draws[rows] = of_unit[units.indices.to_numpy(zero_copy_only=False)]
    least = np.ones(len(groups))
    np.minimum.at(least, groups.label, draws)
    return least


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(N,) one number from 0 for each distinct value; -1 for null."""
    indices = column.combine_chunks().dictionary_encode().indices
    found: NDArray[np.int64] = pc.fill_null(indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return found


def _draws(units: Sequence[str], kind: str, seed: int) -> NDArray[np.float64]:
    digests = (hashlib.sha256(f"{seed}\0{kind}\0{unit}".encode()).digest()[:8] for unit in units)
    drawn = [(int.from_bytes(digest) >> (64 - DRAW_BITS)) / 2**DRAW_BITS for digest in digests]
    return np.array(drawn, dtype=np.float64)
