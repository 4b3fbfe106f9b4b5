"""What a build says when it is over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from shards.manifest import DatasetManifest
from shards.reader import Dataset
from shards.schema import Split, Status


def summary(output: Path, manifest: DatasetManifest, report: Path) -> str:
    """What was made and where it lies, in five lines."""
    counts = manifest.counts
    videos = "  ".join(f"{counts.videos[status]} {status.value}" for status in Status)
    identities = "  ".join(f"{counts.identities[split]} {split.value}" for split in (Split.TRAIN, Split.TEST))
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    return "\n".join(
        (
            f"videos      {sum(counts.videos.values())}: {videos}",
            f"identities  {sum(counts.identities.values())}: {identities}  ({counts.persons} persons)",
            f"images      {counts.images}",
            f"shards      {len(manifest.shards)} ({size:.1f} MB) in {output}",
            f"report      {report}",
        )
    )


def warning(output: Path, manifest: DatasetManifest) -> str | None:
    """What is remarkable about a data set that is sound all the same: that it is empty, and why."""
    counts = manifest.counts
    if counts.videos.get(Status.ACCEPTED, 0):
        return None
    reasons = Counter(video.reason.value for video in Dataset.open(output).videos() if video.reason)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"warning: none of {sum(counts.videos.values())} videos gave an identity: {why}"
