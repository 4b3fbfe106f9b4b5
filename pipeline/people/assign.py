"""From the summary of all identities to what a dataset holds: without duplicates, linked to persons, and split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.config import People
from pipeline.config import Split as SplitConfig
from pipeline.people.duplicates import Bar, Candidates, Duplicate, same_content, same_footage
from pipeline.people.evidence import Indices
from pipeline.people.findings import PeopleFindings
from pipeline.people.link import alike, evidence_of, link, thresholds
from pipeline.people.listed_videos import ListedVideos
from pipeline.people.near_threshold import near_threshold
from pipeline.people.split import hold_out
from pipeline.people.split_inputs import SplitInputs
from pipeline.people.summary import embeddings, sorted_by_key
from pipeline.rejection import Rejection
from shards.schema import Reason, Split


@dataclass(frozen=True, slots=True)
class Placement:
    """The person and the split of an identity."""

    person_id: str
    split: Split


@dataclass(frozen=True)
class Assignment:
    """What is decided of each identity.

    Attributes:
        placements: of those that the dataset holds, by key.
        rejections: of the others, by key.
        findings: for the log and the report.
    """

    placements: dict[str, Placement]
    rejections: dict[str, Rejection]
    findings: PeopleFindings


@dataclass(frozen=True, eq=False)
class SplitRequest:
    """How a split is made.

    Attributes:
        config: how much is held out.
        inputs: the files that the configuration names.
        listed: the videos of the list, if there is one.
        reasons: of the videos that are not accepted, by id.
    """

    config: SplitConfig
    inputs: SplitInputs
    listed: ListedVideos | None
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Recognition:
    """Whose embeddings a summary holds.

    Attributes:
        embedder: its name.
        link_cosine: its threshold in the registry of networks; None when it has none there.
    """

    embedder: str
    link_cosine: float | None = None


WITH_COPIES = 10
"""Before copies are left out, a person may be in so many times more videos before the build stops."""
DOUBTFUL = 0.1
"""How far below the embedder's threshold another one is noted."""


@contextmanager
def no_bar(_title: str, _total: int) -> Iterator[Callable[[int, str], None]]:
    """Progress that is not shown."""
    yield lambda _done, _note: None


def assign(
    summary: pa.Table, people: People, split: SplitRequest, recognition: Recognition, bar: Bar = no_bar
) -> Assignment:
    """Decide on all identities.

    Args:
        summary: of the identities (`pipeline.people.summary`); the order of its rows does not matter.
        people: when two identities are one person; its thresholds are set.
        split: which are held out.
        recognition: whose embeddings the summary holds.
        bar: shows progress.

    Raises:
        BuildError: different persons would be linked.
    """
    summary = sorted_by_key(summary)
    # Footage is compared whatever the threshold of linking: copies must not come into both splits.
    surely, _ = thresholds(people)
    surely = surely if recognition.link_cosine is None else min(surely, recognition.link_cosine)
    vectors = embeddings(summary)
    pairs, evidence = alike(summary, vectors, people, surely), evidence_of(summary, people)
    duplicates = same_content(summary)
    first = people.model_copy(update={"max_person_videos": WITH_COPIES * people.max_person_videos})
    originals = _originals(len(summary), duplicates)
    person = link(summary, vectors, pairs, first, evidence=evidence, original=originals)
    left_out = [duplicate.row for duplicate in duplicates]
    duplicates += same_footage(summary, Candidates(pairs, person, surely), left_out, bar)
    originals = _originals(len(summary), duplicates)
    person = link(summary, vectors, pairs, people, evidence=evidence, original=originals)
    rejections = {duplicate.key: duplicate.rejection for duplicate in duplicates}
    if people.keep == "best":
        rejections |= _not_the_best(summary, person, rejections)
    # What is left out still ties groups together: it shows the same persons.
    held_out = hold_out(
        summary,
        person,
        split.config,
        earlier=split.inputs.earlier,
        listed=split.listed,
        reasons={**split.reasons, **_lost_videos(summary, rejections)},
        left_out=rejections.keys(),
    )
    keys = summary["key"].to_pylist()
    placements = {
        key: Placement(_person_id(keys[first]), Split.TEST if test else Split.TRAIN)
        for key, first, test in zip(keys, person.tolist(), held_out.test.tolist(), strict=True)
        if key not in rejections
    }
    least, same_origin = thresholds(people)
    findings = PeopleFindings(
        embedder=recognition.embedder,
        link_cosine=least,
        same_origin_cosine=same_origin,
        notes=[*_doubtful(people, recognition), *held_out.notes],
        **near_threshold(summary, pairs, person, people, placements),
    )
    return Assignment(placements, rejections, findings)


def _doubtful(people: People, recognition: Recognition) -> Iterator[str]:
    """A note on a threshold that is far below the calibrated one."""
    least, calibrated = people.link_cosine, recognition.link_cosine
    if least is not None and calibrated is not None and least < calibrated - DOUBTFUL:
        yield (
            f"people.link_cosine={least:g} is far below {calibrated:g}, the threshold of {recognition.embedder}: "
            "different persons are probably linked. Look at the report's persons."
        )


def _originals(count: int, duplicates: list[Duplicate]) -> Indices:
    """(N,) the row that is kept in place of each."""
    original = np.arange(count)
    original[[duplicate.row for duplicate in duplicates]] = [duplicate.original for duplicate in duplicates]
    while (original[original] != original).any():  # the original of a copy may be left out for another one
        original = original[original]
    return original


def _lost_videos(summary: pa.Table, rejections: Mapping[str, Rejection]) -> dict[str, str]:
    """The reasons of videos of which no identity is left, by id."""
    videos, keys = summary["video_id"].to_pylist(), summary["key"].to_pylist()
    kept = {video for video, key in zip(videos, keys, strict=True) if key not in rejections}
    return {
        video: str(rejections[key].reason)
        for video, key in zip(videos, keys, strict=True)
        if video not in kept
    }


def _person_id(first_key: str) -> str:
    """Name of a person: that of the first of its keys, so it does not depend on the number of others."""
    return "person_" + hashlib.sha256(first_key.encode()).hexdigest()[:12]


def _not_the_best(
    summary: pa.Table, person: Indices, rejected: Mapping[str, Rejection]
) -> dict[str, Rejection]:
    """Identities of a person of whom another one is kept, which has the better images."""
    keys, quality = summary["key"].to_pylist(), summary["quality"].to_pylist()
    kept = [row for row, key in enumerate(keys) if key not in rejected]
    best: dict[int, int] = {}
    for row in sorted(kept, key=lambda row: (-quality[row], row)):
        best.setdefault(int(person[row]), row)
    found = {}
    for row in kept:
        winner = best[int(person[row])]
        if winner != row:
            detail = f"{keys[winner]} shows the same person better"
            found[keys[row]] = Rejection(Reason.DUPLICATE_PERSON, detail)
    return found
