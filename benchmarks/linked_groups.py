"""Runs the pipeline's linking on groups of labelled images, and counts pairs by labels or by another partition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from identity_groups import Groups
from numpy.typing import NDArray

from faces.types import Floats
from pipeline.config import People
from pipeline.people.link import alike, link
from pipeline.people.summary import SUMMARY, embeddings

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How the pairs of one partition are those of another.

    Attributes:
        joined: pairs that the first one joins.
        wanted: pairs that the second one joins.
        both: pairs that both join.
    """

    joined: int
    wanted: int
    both: int

    @property
    def precision(self) -> float:
        """Share of the joined pairs that are wanted; 1 when none is joined."""
        return self.both / self.joined if self.joined else 1.0

    @property
    def recall(self) -> float:
        """Share of the wanted pairs that are joined; 1 when none is wanted."""
        return self.both / self.wanted if self.wanted else 1.0


def agreement(found: Labels, wanted: Labels) -> Agreement:
    """Compare two partitions of N rows, each given as (N,) labels."""
    both = np.unique(np.stack([found, wanted]), axis=1, return_counts=True)[1]
    alone = [np.unique(labels, return_counts=True)[1] for labels in (found, wanted)]
    return Agreement(*(int((sizes * (sizes - 1) // 2).sum()) for sizes in (*alone, both)))


def linked(groups: Groups, vectors: Floats, link_cosine: float) -> Labels:
    """(G,) the person that the pipeline gives to each group, as if each were from another video.

    Args:
        groups: of images.
        vectors: (N, D) unit vectors of the images.
        link_cosine: the threshold.
    """
    means = groups.embeddings(vectors)
    count = len(means)
    keys = [f"group_{row:06d}" for row in range(count)]
    known = {"key": keys, "video_id": keys, "embedding": list(means), "seen_with": [[]] * count}
    defaults = {pa.string(): "", pa.binary(): b"", pa.int32(): 0, pa.float64(): 0.0}
    columns = [
        pa.array(known[field.name], field.type)
        if field.name in known
        else pa.nulls(count, field.type)
        if field.nullable
        else pa.array([defaults[field.type]] * count, field.type)
        for field in SUMMARY
    ]
    people = People(link_cosine=link_cosine, same_origin_cosine=link_cosine)
    summary = pa.table(columns, schema=SUMMARY)
    vectors = embeddings(summary)
    return link(summary, vectors, alike(summary, vectors, people), people)


def joined_cosines(groups: Groups, person: Labels, vectors: Floats) -> Floats:
    """(P,) cosines of all pairs of groups that have one person.

    Args:
        groups: of images.
        person: (G,) of each group.
        vectors: (N, D) unit vectors of the images.
    """
    means = groups.embeddings(vectors)
    first, second = np.triu_indices(len(means), k=1)
    same = person[first] == person[second]
    cosines: Floats = (means @ means.T)[first[same], second[same]]
    return cosines
