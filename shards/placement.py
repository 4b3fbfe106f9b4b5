"""Which shard a sample goes into: arithmetic over the samples' order and sizes, known before a byte is written."""

from __future__ import annotations

from shards.layout import shard_name
from shards.metadata import ShardLimits
from shards.schema import Split
from shards.tar import archive_size


class ShardPlaces:
    """Gives each sample its shard; samples come in canonical order, sorted by (split, key).

    Args:
        limits: where shards are cut.
    """

    def __init__(self, limits: ShardLimits) -> None:
        self._limits = limits
        self._split: Split | None = None
        self._number = self._samples = self._bytes = 0

    def place(self, split: Split, length: int) -> str:
        """Name of the shard of the next sample.

        Args:
            split: of the sample.
            length: bytes of all its members in the tar, headers and padding included.

        Raises:
            ValueError: the split would have more shards than names.
        """
        full = (
            self._samples >= self._limits.max_samples
            or archive_size(self._bytes + length) > self._limits.max_bytes
        )
        if split is not self._split:
            self._split, self._number, self._samples, self._bytes = split, 0, 0, 0
        elif full:
            self._number, self._samples, self._bytes = self._number + 1, 0, 0
        self._samples += 1
        self._bytes += length
        return shard_name(split, self._number)
