"""Tar headers with one spelling: name and size decide every byte.

The standard library's headers are equal today, but the spelling of their empty fields has changed between
Python releases; a format that promises equal bytes fixes them itself.
"""

from __future__ import annotations

import struct

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two zero blocks end the archive; there is no padding to a larger record."""
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_MAX_SIZE = 8**11 - 1


def header(name: str, size: int) -> bytes:
    """The 512-byte ustar header of a regular file: mode 0644, uid, gid and mtime 0, no user names.

    Raises:
        ValueError: the name is not 1..100 ASCII characters or the size is over 8 GiB.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= 100:
        raise ValueError(f"member name {name!r} must have 1 to 100 characters")
    if not 0 <= size <= _MAX_SIZE:
        raise ValueError(f"member {name!r}: {size} bytes do not fit a ustar header")
    fields = (
        encoded,
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0",
        b"",
        b"ustar\0",
        b"00",
        b"",
        b"",
        b"",
        b"",
        b"",
    )
    unsigned = _HEADER.pack(*fields)
    return unsigned[:148] + b"%06o\0 " % sum(unsigned) + unsigned[156:]


def padding(size: int) -> int:
    """Zero bytes that follow `size` bytes of data, up to the next block."""
    return -size % BLOCK


def parse(block: bytes) -> tuple[str, int] | None:
    """Name and size from a header; None unless its checksum is right and it is a ustar regular file."""
    if len(block) != BLOCK or block[257:263] != b"ustar\0" or block[156:157] not in {b"0", b"\0"}:
        return None
    try:
        checksum = int(block[148:154], 8)
        size = int(block[124:135], 8)
        name = block[:100].rstrip(b"\0").decode("ascii")
    except ValueError:
        return None
    if checksum != sum(block) - sum(block[148:156]) + 8 * ord(" ") or size < 0 or not name:
        return None
    return name, size
