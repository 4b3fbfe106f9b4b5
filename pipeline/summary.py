"""What a finished build made, and the lines it prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shards.metadata import DatasetMetadata
from shards.reader import Dataset
from shards.schema import Split, Status


@dataclass(frozen=True)
class Build:
    """A finished build: the content of dataset.json, and the path of the report."""

    metadata: DatasetMetadata
    report: Path


def summary(output: Path, build: Build) -> str:
    """Counts, and where the dataset and its report are, in five lines."""
    metadata, counts = build.metadata, build.metadata.counts
    videos = "  ".join(f"{counts.videos[status]} {status.value}" for status in Status)
    identities = "  ".join(f"{counts.identities[split]} {split.value}" for split in (Split.TRAIN, Split.TEST))
    size = sum(shard.bytes for shard in metadata.shards) / 1e6
    return "\n".join(
        (
            f"videos      {sum(counts.videos.values())}: {videos}",
            f"identities  {sum(counts.identities.values())}: {identities}  ({counts.persons} persons)",
            f"images      {counts.images}",
            f"shards      {len(metadata.shards)} ({size:.1f} MB) in {output}",
            f"report      {build.report}",
        )
    )


def warning(output: Path, metadata: DatasetMetadata) -> str | None:
    """What is remarkable about a dataset that is sound all the same: that it is empty, and why."""
    counts = metadata.counts
    if counts.videos.get(Status.ACCEPTED, 0):
        return None
    reasons = Counter(str(video.reason) for video in Dataset.open(output).videos() if video.reason)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"warning: none of {sum(counts.videos.values())} videos gave an identity: {why}"
