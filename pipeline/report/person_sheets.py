"""Contact sheets of persons: the largest groups, and the pairs nearest to the threshold of linking.

Both are there so that a person can see whether linking joined two persons, or missed that two are one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.people.findings import SHOWN_PAIRS, Pair, PeopleFindings
from pipeline.report.contact_sheet import Samples, Thumbnail, thumbnails
from pipeline.report.image_counts import ImageCounts
from pipeline.report.persons import Group
from shards.metadata import DatasetError
from shards.sample import Sample
from shards.schema import IdentityRecord

SHOWN_NOTES = 50
LONGEST_NOTE = 1000


@dataclass(frozen=True)
class Portrait:
    """Some images of one identity; `error` states why there are none.

    Attributes:
        key: of the identity.
        record: None where the sample cannot be read.
        thumbnails: from left to right in the order of their yaw.
        error: None where there are images.
    """

    key: str
    record: IdentityRecord | None
    thumbnails: list[Thumbnail]
    error: str | None = None


@dataclass(frozen=True)
class GroupSheet:
    """One person: its figures, and a frontal image of each identity that is shown."""

    person_id: str
    group: Group
    portraits: list[Portrait]

    @property
    def hidden(self) -> int:
        """Identities that are not shown."""
        return self.group.identities - len(self.portraits)


@dataclass(frozen=True)
class PairSheet:
    """Two identities side by side; `least_cosine` is the threshold of this pair."""

    cosine: float
    least_cosine: float
    portraits: tuple[Portrait, Portrait]


@dataclass(frozen=True)
class PairSheets:
    """The pairs nearest to the threshold on both sides.

    Attributes:
        embedder: name of the network.
        threshold: least cosine of a link.
        same_origin: the same for two identities of one origin.
        linked: pairs of one person, the least alike first.
        apart: pairs of two persons below the threshold, the most alike first.
        rejected: pairs of two persons above it, the most alike first.
        notes: sentences for the user.
        notes_left_out: number of further ones.
    """

    embedder: str
    threshold: float
    same_origin: float
    linked: list[PairSheet]
    apart: list[PairSheet]
    rejected: list[PairSheet]
    notes: list[str]
    notes_left_out: int


def shown_keys(counts: ImageCounts, findings: PeopleFindings | None) -> list[str]:
    """Keys of all samples that the sheets show, each once."""
    grouped = [key for key, _ in counts.named.values()]
    kinds = [findings.linked, findings.apart, findings.rejected] if findings is not None else []
    pairs = [(pair.first, pair.second) for kind in kinds for pair in kind[:SHOWN_PAIRS]]
    return list(dict.fromkeys([*grouped, *(key for pair in pairs for key in pair)]))


def group_sheets(samples: Samples, counts: ImageCounts) -> list[GroupSheet]:
    """The sheets of the largest persons."""
    return [
        GroupSheet(
            person_id=counts.named[group.shown[0]][1],
            group=group,
            portraits=[portrait(samples, counts.named[number][0], 1) for number in group.shown],
        )
        for group in counts.largest
    ]


def pair_sheets(samples: Samples, findings: PeopleFindings | None, *, erased: bool) -> PairSheets | None:
    """The sheets of the pairs; None where linking left no findings.

    Args:
        samples: those of the pairs.
        findings: of linking.
        erased: whether samples were erased since: then nothing is shown that may name them.
    """
    if findings is None:
        return None
    return PairSheets(
        embedder=findings.embedder,
        threshold=findings.link_cosine,
        same_origin=findings.same_origin_cosine,
        linked=_pairs(samples, findings.linked),
        apart=_pairs(samples, findings.apart),
        rejected=_pairs(samples, findings.rejected),
        notes=[] if erased else [_shortened(note) for note in findings.notes[:SHOWN_NOTES]],
        notes_left_out=0 if erased else max(0, len(findings.notes) - SHOWN_NOTES),
    )


def portrait(samples: Samples, key: str, images: int) -> Portrait:
    """One or three images of an identity."""
    try:
        sample = samples.sample(key)
    except KeyError:
        return Portrait(key, None, [], "it is not in the dataset")
    except (DatasetError, OSError) as error:
        return Portrait(key, None, [], str(error))
    places = [frontal(sample)] if images == 1 else turned(sample)
    return Portrait(key, sample.record, thumbnails(sample, places))


def frontal(sample: Sample) -> int:
    """Number of the image that looks most nearly into the camera."""
    return min(range(len(sample.images)), key=lambda place: _turn(sample, place))


def turned(sample: Sample) -> list[int]:
    """Numbers of three images: with the least yaw, the most frontal of the others, and with the largest yaw.

    Two identities are then compared in like poses.
    """
    ordered = np.argsort([image.pose.yaw for image in sample.record.images], kind="stable").tolist()
    return [ordered[0], min(ordered[1:-1], key=lambda place: _turn(sample, place)), ordered[-1]]


def _turn(sample: Sample, place: int) -> float:
    """How far the head is turned, in degrees."""
    pose = sample.record.images[place].pose
    return float(np.hypot(pose.yaw, pose.pitch))


def _shortened(note: str) -> str:
    return note if len(note) <= LONGEST_NOTE else note[:LONGEST_NOTE] + " …"


def _pairs(samples: Samples, pairs: list[Pair]) -> list[PairSheet]:
    return [
        PairSheet(
            pair.cosine,
            pair.least_cosine,
            (portrait(samples, pair.first, 3), portrait(samples, pair.second, 3)),
        )
        for pair in pairs[:SHOWN_PAIRS]
        if pair.first in samples and pair.second in samples
    ]
