"""Links identities that show the same person, rejects duplicate videos, and holds out a test split.

Everything here is a function of all outcomes together, so it runs after curation, in one place, and does not
depend on the order in which videos were finished.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from pipeline.config import People
from pipeline.config import Split as SplitConfig
from shards.schema import Box, Reason, Span, Split, Status, VideoOutcome

ROWS_AT_ONCE = 2048
"""Rows of the likeness matrix in memory at a time: 134,077 identities have 18 billion pairs."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What linking needs to know of a staged identity.

    Attributes:
        key: of its sample.
        video_id: the video it is from.
        origin: what that video was cut from, if known.
        embedding: unit vector.
        badness: mean quality of its images, turned so that lower is better.
    """

    key: str
    video_id: str
    origin: str | None
    embedding: NDArray[np.float32]
    badness: float


@dataclass(frozen=True)
class Placement:
    """The person and the split of an identity."""

    person_id: str
    split: Split


@dataclass(frozen=True)
class Assignment:
    """The dataset as it will be packed.

    Attributes:
        outcomes: one for each video, sorted by id; some rejected here that curation accepted.
        placements: person and split of each identity that is kept, by key.
    """

    outcomes: list[VideoOutcome]
    placements: dict[str, Placement]


def assign(
    outcomes: list[VideoOutcome], identities: list[Identity], people: People, split: SplitConfig
) -> Assignment:
    """Assign persons and splits, and reject duplicates.

    Args:
        outcomes: one for each video.
        identities: those of the accepted videos.
        people: when two identities are one person.
        split: how much to hold out.
    """
    by_video = {outcome.video_id: outcome for outcome in sorted(outcomes, key=lambda o: o.video_id)}
    for outcome, first in _copies(list(by_video.values())):
        by_video[outcome.video_id] = _reject(outcome, Reason.DUPLICATE_VIDEO, f"same content as {first}")
    kept = [i for i in sorted(identities, key=lambda i: i.key) if by_video[i.video_id].identities]
    persons = link_identities(kept, people.same_person_cosine)
    if people.keep == "best":
        best = {
            person: min(group, key=lambda i: (i.badness, i.key)) for person, group in _groups(kept, persons)
        }
        for identity in kept:
            winner = best[persons[identity.key]]
            if winner.key != identity.key:
                outcome = by_video[identity.video_id]
                by_video[identity.video_id] = _drop_track(outcome, identity.key, winner.key)
        kept = sorted(best.values(), key=lambda i: i.key)
    test = held_out(kept, persons, split)
    placements = {
        i.key: Placement(persons[i.key], Split.TEST if i.key in test else Split.TRAIN) for i in kept
    }
    return Assignment(list(by_video.values()), placements)


def link_identities(identities: list[Identity], least_cosine: float) -> dict[str, str]:
    """Person of each identity: a chain of similar pairs connects the identities of one person.

    The person's id is made from the first of its keys, so it does not depend on the number of others.
    """
    if not identities:
        return {}
    vectors = np.array([identity.embedding for identity in identities], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with threadpool_limits(1):  # another order of summing could cross the threshold
        labels = _components(_alike(vectors, least_cosine), len(identities))
    names: dict[int, str] = {}
    for identity, label in zip(identities, labels, strict=True):
        names.setdefault(int(label), "person_" + hashlib.sha256(identity.key.encode()).hexdigest()[:12])
    return {identity.key: names[int(label)] for identity, label in zip(identities, labels, strict=True)}


def held_out(identities: list[Identity], persons: dict[str, str], config: SplitConfig) -> set[str]:
    """Keys of the test split.

    Whole groups of identities are taken, in an order given by the seed, until the wanted number of videos is
    reached: a group contains everything that shares a person, a video or an origin, so it is never in both splits.
    """
    groups = _inseparable(identities, persons)
    videos = {identity.video_id for identity in identities}
    wanted = min(config.test_videos, int(len(videos) * config.max_test_fraction))

    def draw(group: list[Identity]) -> str:
        return hashlib.sha256(f"{config.seed}\0{group[0].key}".encode()).hexdigest()

    test: set[str] = set()
    taken: set[str] = set()
    for group in sorted(groups, key=draw):
        in_group = {identity.video_id for identity in group}
        if len(taken) + len(in_group) <= wanted:
            taken |= in_group
            test |= {identity.key for identity in group}
    return test


def _inseparable(identities: list[Identity], persons: dict[str, str]) -> list[list[Identity]]:
    first: dict[tuple[str, str], int] = {}
    pairs: list[tuple[int, int]] = []
    for row, identity in enumerate(identities):
        ties = [("person", persons[identity.key]), ("video", identity.video_id)]
        if identity.origin is not None:
            ties.append(("origin", identity.origin))
        pairs += [(row, first.setdefault(tie, row)) for tie in ties]
    labels = _components(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(identities))
    groups: dict[int, list[Identity]] = defaultdict(list)
    for identity, label in zip(identities, labels, strict=True):
        groups[int(label)].append(identity)
    return list(groups.values())


def _alike(vectors: NDArray[np.float32], least_cosine: float) -> NDArray[np.int64]:
    """(pairs, 2) rows whose cosine reaches the threshold."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        cosines = vectors[start : start + ROWS_AT_ONCE] @ vectors[start:].T
        found.append(np.argwhere(np.triu(cosines >= least_cosine, k=1)) + start)
    return np.concatenate(found)


def _components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def _copies(outcomes: list[VideoOutcome]) -> list[tuple[VideoOutcome, str]]:
    """Accepted videos with the same content as an earlier accepted one, with the id of the earlier one.

    Many clips can be cut from one file, so content is a file's digest and the part of the file that is the video.
    """
    first: dict[tuple[str, Span | None, Box | None], str] = {}
    copies = []
    for outcome in outcomes:
        if outcome.status is Status.ACCEPTED and outcome.sha256 is not None:
            content = (outcome.sha256, outcome.span_s, outcome.annotated_box)
            original = first.setdefault(content, outcome.video_id)
            if original != outcome.video_id:
                copies.append((outcome, original))
    return copies


def _reject(outcome: VideoOutcome, reason: Reason, detail: str) -> VideoOutcome:
    tracks = [
        track
        if track.key is None
        else track.model_copy(update={"key": None, "reason": reason, "detail": detail})
        for track in outcome.tracks
    ]
    return outcome.model_copy(
        update={
            "status": Status.REJECTED,
            "reason": reason,
            "detail": detail,
            "tracks": tracks,
            "identities": 0,
        }
    )


def _drop_track(outcome: VideoOutcome, key: str, winner: str) -> VideoOutcome:
    reason, detail = Reason.DUPLICATE_PERSON, f"{winner} shows the same person better"
    if outcome.identities == 1:
        return _reject(outcome, reason, detail)
    tracks = [
        track.model_copy(update={"key": None, "reason": reason, "detail": detail})
        if track.key == key
        else track
        for track in outcome.tracks
    ]
    return outcome.model_copy(update={"tracks": tracks, "identities": outcome.identities - 1})


def _groups(identities: list[Identity], persons: dict[str, str]) -> list[tuple[str, list[Identity]]]:
    groups: dict[str, list[Identity]] = defaultdict(list)
    for identity in identities:
        groups[persons[identity.key]].append(identity)
    return list(groups.items())
