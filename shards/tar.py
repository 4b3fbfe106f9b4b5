"""Reads shards that may be damaged anywhere: as the index says, and else with the standard library's `tarfile`.

`tarfile` accepts many spellings of a header, and takes a damaged one for the end of the archive unless it is
told to go on. So each header is compared with the normative one ("Tar" in README.md), which is built here from
constants: Python has changed the spelling of empty header fields between releases.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from shards.findings import Check

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
"""An archive is padded with zeros to a multiple of this number of bytes."""
MODE = 0o644
MAX_MEMBER = 64 * 2**20
"""Largest member held in memory, in bytes; no member of the format comes near it."""

_FIELDS = ("mode", "uid", "gid", "mtime", "type", "linkname", "uname", "gname", "devmajor", "devminor")


@dataclass(frozen=True)
class Member:
    """One member of the shard; `offset` is that of its data."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Fault:
    """A deviation from the format at `offset`; `name` is that of the member, when known."""

    check: Check
    offset: int
    name: str | None
    message: str


def padded(size: int, to: int = BLOCK) -> int:
    """`size` bytes of data with the zeros that follow them."""
    return -(-size // to) * to


def archive_size(end_of_members: int) -> int:
    """Bytes of a shard whose last member ends at `end_of_members`: two zero blocks, padded to a record."""
    return padded(end_of_members + 2 * BLOCK, RECORD)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before the data of a member.

    Raises:
        ValueError: the name is not 1..100 ASCII characters or the size is over 8 GiB.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= 100 or not 0 <= size < 8**11:
        raise ValueError(f"{name!r} of {size} bytes does not fit a ustar header")
    before = encoded.ljust(100, b"\0") + b"%07o\0" % MODE + b"0000000\0" * 2 + b"%011o\0" % size + b"0" * 11
    after = b"0".ljust(101, b"\0") + b"ustar\x0000"
    block = (before + b"\0" + b" " * 8 + after).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def members(file: BinaryIO, known: Mapping[int, tuple[str, int]]) -> Iterator[Member | Fault]:
    """Members and faults of a shard that may be damaged anywhere, in the order of its bytes.

    Where the bytes are those that the index leads to expect, one comparison a member is enough. From the first
    that are not, `tarfile` reads on: a damaged header loses no data where the index knows the member behind it;
    otherwise reading goes on at the next header that is whole.

    Args:
        file: the shard, seekable.
        known: offset of a member's data -> its name and size, from the index; may be empty or wrong.
    """
    end = 0
    while member := _expected(file, end, known):
        yield member
        end = member.offset + padded(len(member.data))
    size = file.seek(0, os.SEEK_END)
    file.seek(end)
    # Bytes after the last readable member are reported below.
    unreadable = contextlib.suppress(tarfile.TarError, ValueError, OverflowError, EOFError)
    # ignore_zeros: go on behind a header that is damaged, instead of taking it for the end.
    with unreadable, tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as tar:
        for info in tar:
            # An extended header before it is one that no member may have.
            start = info.offset_data - BLOCK
            if start < end:
                continue
            yield from _bridge(file, end, start, known)
            yield from _member(file, info)
            end = info.offset_data + (padded(info.size) if info.isreg() else 0)
    for item in _bridge(file, end, size, known, at_end=True):
        yield item
        if isinstance(item, Member):
            end = item.offset + padded(len(item.data))
    yield from _end(file, end, size)


def _expected(file: BinaryIO, start: int, known: Mapping[int, tuple[str, int]]) -> Member | None:
    """The member whose header is at `start`, if all of its bytes but the data are as the index has them."""
    name, size = known.get(start + BLOCK, ("", MAX_MEMBER + 1))
    if size > MAX_MEMBER or not name or "\0" in name:
        return None
    block = _read(file, start, BLOCK + padded(size))
    if len(block) < BLOCK + padded(size) or not block.startswith(header(name, size)):
        return None
    if block[BLOCK + size :].strip(b"\0"):
        return None
    return Member(name, start + BLOCK, block[BLOCK : BLOCK + size])


def _member(file: BinaryIO, info: tarfile.TarInfo) -> Iterator[Member | Fault]:
    name, size, start = info.name, info.size, info.offset_data - BLOCK
    if size > MAX_MEMBER:
        message = f"declares {size:,} bytes, more than any member has"
        yield Fault(Check.TAR_HEADER, start, name, message)
        return
    if not 0 < len(name) <= 100 or not name.isascii() or _read(file, start, BLOCK) != header(name, size):
        yield Fault(Check.TAR_HEADER, start, name, f"header is not canonical: {_differing(info)}")
    if info.isreg():
        yield from _data(file, name, info.offset_data, size)


def _data(file: BinaryIO, name: str, start: int, size: int) -> Iterator[Member | Fault]:
    data = _read(file, start, size)
    rest = _read(file, start + size, padded(size) - size)
    if len(data) + len(rest) < padded(size):
        yield Fault(Check.TAR_END, start, name, "the archive ends within this member")
    if len(data) == size:
        yield Member(name, start, data)
    if any(rest):
        yield Fault(Check.TAR_PADDING, start + size, name, "the bytes after its data are not zero")


def _bridge(
    file: BinaryIO, start: int, stop: int, known: Mapping[int, tuple[str, int]], *, at_end: bool = False
) -> Iterator[Member | Fault]:
    """The bytes between two members: those whose headers are damaged, as far as the index knows them."""
    while start < stop and start + BLOCK in known:
        name, size = known[start + BLOCK]
        yield Fault(Check.TAR_HEADER, start, name, "no canonical ustar header")
        if size <= MAX_MEMBER:
            yield from _data(file, name, start + BLOCK, size)
        start += BLOCK + padded(size)
    if start < stop and not at_end:
        yield Fault(Check.TAR_HEADER, start, None, "no canonical ustar header")


def _end(file: BinaryIO, end: int, size: int) -> Iterator[Fault]:
    """The zeros after the last member."""
    expected = archive_size(end)
    if size < end + 2 * BLOCK:
        yield Fault(Check.TAR_END, end, None, "the archive ends without its two zero blocks")
    elif size != expected:
        yield Fault(Check.TAR_END, end, None, f"has {size:,} bytes, expected {expected:,}")
    position = end
    while block := _read(file, position, 2**20):
        if any(block):
            yield Fault(Check.TAR_END, position, None, "the bytes after the last member are not zero")
            return
        position += len(block)


def _differing(info: tarfile.TarInfo) -> str:
    canonical = tarfile.TarInfo(info.name)
    canonical.mode = MODE
    fields = [
        f"{field} {getattr(info, field)!r}"
        for field in _FIELDS
        if getattr(info, field) != getattr(canonical, field)
    ]
    return ", ".join(fields) or "another spelling"


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
