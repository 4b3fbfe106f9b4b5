"""Writes one shard with webdataset's `TarWriter`.

It writes one member a call, so members keep the order in which they come, and with these settings its headers are
the normative ones ("Tar" in README.md): name and size decide every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import IO

from shards.canonical import sha256_hex
from shards.layout import split_of
from shards.metadata import ShardEntry
from shards.tables import Row
from shards.tar import BLOCK, MODE, padded


class ShardFile:
    """A shard that is being written: appends samples, counts and hashes the bytes."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        # Imports torch, so only a process that writes shards pays for it.
        from webdataset.writer import TarWriter

        self._file = _HashingFile(file)
        self._tar = TarWriter(self._file, encoder=False, user="", group="", mode=MODE, mtime=0)
        self._name = name
        self._offset = 0
        self._samples = 0

    def add(self, key: str, members: Iterable[tuple[str, bytes]]) -> Row:
        """Write one sample; returns its row of the index.

        Args:
            key: of the sample.
            members: field and bytes of each, in their order; the record comes last.
        """
        start = self._offset
        rows = []
        for field, data in members:
            self._tar.write({"__key__": key, field: data})
            offset = self._offset + BLOCK
            rows.append({"name": f"{key}.{field}", "offset": offset, "size": len(data)})
            self._offset = offset + padded(len(data))
        self._file.flush()
        self._samples += 1
        return {
            "key": key,
            "split": split_of(self._name).value,
            "shard": self._name,
            "offset": start,
            "length": self._offset - start,
            "json_sha256": sha256_hex(data),
            "members": rows,
        }

    def end(self) -> ShardEntry:
        """Write the end of the archive; returns the shard's entry in the metadata."""
        self._tar.close()
        self._file.flush()
        return ShardEntry(
            name=self._name,
            split=split_of(self._name),
            sha256=self._file.sha256.hexdigest(),
            bytes=self._file.size,
            samples=self._samples,
        )


class _HashingFile:
    """Collects what `tarfile` writes in small pieces: beside other threads, each write would wait for the GIL."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        return len(data)

    def flush(self) -> None:
        """Hash and write what was collected."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.sha256.update(data)
        self.size += len(data)
        self._file.write(data)
