"""The result of a finished build, and the lines it prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.not_accepted import NOT_ACCEPTED
from pipeline.people.outcomes import AFTER_CURATION
from shards.layout import VIDEOS
from shards.metadata import DatasetMetadata
from shards.schema import Split, Status
from shards.streamed import StreamedDataset
from storage.path import AnyPath

FOUND_LATER = " (found after curation)"
"""Explains why fewer videos are accepted than the progress of curation showed."""


@dataclass(frozen=True)
class Build:
    """A finished build.

    Attributes:
        metadata: the content of dataset.json.
        report: path of the page.
        missing: number of annotated clips without a file.
    """

    metadata: DatasetMetadata
    report: AnyPath
    missing: int = 0


def summary(output: AnyPath, build: Build) -> str:
    """Counts, the reasons of videos without an identity, and the paths of dataset and report, a line each."""
    metadata, counts = build.metadata, build.metadata.counts
    videos = "  ".join(f"{counts.videos[status]} {status.value}" for status in Status)
    identities = "  ".join(f"{counts.identities[split]} {split.value}" for split in (Split.TRAIN, Split.TEST))
    size = sum(shard.bytes for shard in metadata.shards) / 1e6
    reasons = reasons_of(output)
    persons = "1 person" if counts.persons == 1 else f"{counts.persons} persons"
    return "\n".join(
        (
            f"videos      {sum(counts.videos.values())}: {videos}",
            *(
                f"{status.value:<12}{_listed(reasons[status])}"
                for status in (Status.REJECTED, Status.FAILED)
                if reasons[status]
            ),
            f"identities  {sum(counts.identities.values())}: {identities}  ({persons})",
            f"images      {counts.images}",
            f"shards      {len(metadata.shards)} ({size:.1f} MB) in {output}",
            f"report      {build.report}",
            *_list(build),
        )
    )


def _list(build: Build) -> list[str]:
    """The path of the list of what was not accepted, with the number of its lines; nothing when it has none."""
    counts = build.metadata.counts.videos
    videos = counts.get(Status.FAILED, 0) + counts.get(Status.REJECTED, 0)
    if not videos + build.missing:
        return []
    parts = [f"{videos} {'video' if videos == 1 else 'videos'} not accepted"] if videos else []
    if build.missing:
        parts.append(f"{build.missing} annotated {'clip' if build.missing == 1 else 'clips'} without a file")
    return [f"list        {' and '.join(parts)}: {build.report.parent / NOT_ACCEPTED}"]


def warning(metadata: DatasetMetadata) -> str | None:
    """A warning about a complete and verified dataset: that it is empty."""
    counts = metadata.counts
    if counts.videos.get(Status.ACCEPTED, 0):
        return None
    return (
        f"warning: none of {sum(counts.videos.values())} videos gave an identity. The summary and the report name "
        "the reasons."
    )


def reasons_of(output: AnyPath) -> dict[Status, Counter[str]]:
    """How many videos have each reason, by their status."""
    found: dict[Status, Counter[str]] = {status: Counter() for status in Status}
    for batch in StreamedDataset.open(output).batches(VIDEOS, ("status", "reason")):
        for row in batch.to_pylist():
            if row["reason"] is not None:
                found[Status(row["status"])][row["reason"]] += 1
    return found


def _listed(reasons: Counter[str]) -> str:
    notes = dict.fromkeys(map(str, AFTER_CURATION), FOUND_LATER)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}{notes.get(reason, '')}" for reason, count in ordered)
