"""Data sets with one damaged identity."""

from __future__ import annotations

from pathlib import Path

from shards.reader import Dataset


def damage(root: Path) -> str:
    """Change a byte of a training identity's first image, and say whose."""
    data = Dataset.open(root)
    place = data.locate(data.keys()[-1])
    offset, size = place.members["0.jpg"]
    with (root / place.shard).open("r+b") as file:
        file.seek(offset + size // 2)
        byte = file.read(1)[0]
        file.seek(offset + size // 2)
        file.write(bytes([byte ^ 255]))
    return place.key
