"""Walks through a shard that may be damaged anywhere, and loses as little as possible of what follows.

A damaged header is bridged with what the index says about that place; without an entry there, the walk goes
on at the next block that is a valid header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from shards.findings import Check
from shards.ustar import BLOCK, END, header, padding, parse

MAX_MEMBER = 64 * 2**20
"""Largest member held in memory, in bytes; nothing in the format comes near."""

_FIELDS = {
    "name": (0, 100),
    "mode": (100, 108),
    "uid": (108, 116),
    "gid": (116, 124),
    "size": (124, 136),
    "mtime": (136, 148),
    "checksum": (148, 156),
    "type": (156, 157),
    "link name": (157, 257),
    "magic": (257, 265),
    "user name": (265, 297),
    "group name": (297, 329),
    "device": (329, 345),
    "prefix": (345, 500),
    "padding": (500, 512),
}


@dataclass(frozen=True)
class Member:
    """One member as it lies in the shard; `offset` is that of its data."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Fault:
    """Something that is not as the format says, at `offset`; `name` is that of the member, when known."""

    check: Check
    offset: int
    name: str | None
    message: str


class HashingReader:
    """Reads a file from front to back and hashes what it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.offset = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        data = self._file.read(size)
        self._hash.update(data)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> None:
        """Read `size` bytes, or to the end of the file, without keeping them."""
        while size > 0 and (data := self.read(min(size, 2**20))):
            size -= len(data)

    def drain(self) -> int:
        """Read to the end; returns the number of bytes that were left."""
        start = self.offset
        while self.read(2**20):
            pass
        return self.offset - start

    def sha256(self) -> str:
        """Of what was read so far."""
        return self._hash.hexdigest()


def walk(reader: HashingReader, known: Mapping[int, tuple[str, int]]) -> Iterator[Member | Fault]:
    """Members and faults in the order of the shard; the reader is at the end of the file afterwards.

    Args:
        reader: at the start of the shard.
        known: offset of a member's data -> its name and size, from the index; may be empty or wrong.
    """
    lost = False
    while True:
        start = reader.offset
        block = reader.read(BLOCK)
        if len(block) < BLOCK:
            if not lost or block:
                yield Fault(Check.TAR_END, start, None, "the archive ends without its two zero blocks")
            return
        expected = known.get(start + BLOCK)
        found = parse(block)
        if found is None and expected is None and not any(block) and not lost:
            yield from _end(reader, start)
            return
        if found is None and not lost:
            yield Fault(Check.TAR_HEADER, start, expected and expected[0], "no canonical ustar header")
        found = found or expected
        lost = found is None
        if found is None:
            continue
        name, size = found
        if parse(block) is not None and block != header(name, size):
            fields = _differing_fields(block, header(name, size))
            yield Fault(Check.TAR_HEADER, start, name, f"header is not canonical: {fields}")
        yield from _member(reader, name, size)


def _member(reader: HashingReader, name: str, size: int) -> Iterator[Member | Fault]:
    start = reader.offset
    if size > MAX_MEMBER:
        yield Fault(Check.TAR_HEADER, start, name, f"claims {size:,} bytes, more than any member has")
        reader.skip(size + padding(size))
        return
    data = reader.read(size)
    rest = reader.read(padding(size))
    if len(data) + len(rest) < size + padding(size):
        yield Fault(Check.TAR_END, start, name, "the archive ends within this member")
    if len(data) == size:
        yield Member(name, start, data)
    if any(rest):
        yield Fault(Check.TAR_PADDING, start + size, name, "the bytes after its data are not zero")


def _end(reader: HashingReader, start: int) -> Iterator[Fault]:
    if reader.read(len(END) - BLOCK) != END[BLOCK:]:
        yield Fault(Check.TAR_END, start, None, "the archive does not end with two zero blocks")
    if left := reader.drain():
        yield Fault(Check.TAR_END, start, None, f"{left:,} bytes follow the end of the archive")


def _differing_fields(block: bytes, canonical: bytes) -> str:
    return (
        ", ".join(
            f"{name} {block[start:end].rstrip(bytes(1))!r}"
            for name, (start, end) in _FIELDS.items()
            if block[start:end] != canonical[start:end] and name != "checksum"
        )
        or "checksum"
    )
