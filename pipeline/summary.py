"""The five lines that end a build."""

from __future__ import annotations

from pathlib import Path

from shards.manifest import DatasetManifest


def summary(output: Path, manifest: DatasetManifest, report: Path) -> str:
    """What was made and where it lies."""
    counts = manifest.counts
    videos = "  ".join(f"{count} {status.value}" for status, count in counts.videos.items())
    identities = "  ".join(f"{count} {split.value}" for split, count in counts.identities.items())
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
