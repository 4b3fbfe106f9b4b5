"""Bytes that no encoder writes: damage that decoders pass over.

- H.264 and HEVC never hold the bytes 00 00 00, 00 00 01 or 00 00 02 within a unit: encoders escape them with 03
  (H.264, section 7.4.1; HEVC, section 7.4.2). A block of zeros, as a lost sector leaves it, may decode without a
  complaint.
- VP8 and VP9 code by arithmetic, whose output looks like noise: a long run of zeros is none of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LONGEST_RUN = 64
"""Bytes; a run of zeros as long as this is damage. Chance makes one in 2 ** 512."""
_IN_UNIT = re.compile(rb"\x00\x00[\x00-\x02]")
_BETWEEN_START_CODES = re.compile(rb"\x00\x00\x02|\x00\x00\x00+[^\x00\x01]")
_ZEROS = bytes(LONGEST_RUN)


def intact_check(codec: str, extradata: bytes | None) -> Callable[[bytes], bool] | None:
    """The check of a packet's bytes for a stream.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: its configuration record.

    Returns:
        A function that says whether a packet's bytes may come from an encoder; None where every bytes may.
    """
    if codec in {"vp8", "vp9"}:
        return no_long_run
    if codec not in {"h264", "hevc"}:
        return None
    if not extradata or extradata[0] != 1:
        return no_escapes_missing
    # The byte that holds the size of the lengths, less one, in its two lowest bits.
    at = 4 if codec == "h264" else 21
    if len(extradata) <= at:
        return None
    size = (extradata[at] & 3) + 1
    is_slice = is_h264_slice if codec == "h264" else is_hevc_slice
    return lambda data: units_intact(data, size, is_slice)


def is_h264_slice(header: int) -> bool:
    """Whether a unit holds a picture, by its first byte (H.264, table 7-1)."""
    return 1 <= header & 31 <= 5


def is_hevc_slice(header: int) -> bool:
    """Whether a unit holds a picture, by its first byte (HEVC, table 7-1)."""
    return header >> 1 & 63 < 32


def units_intact(data: bytes, length_size: int, is_slice: Callable[[int], bool]) -> bool:
    """Whether a packet of H.264 or HEVC consists of whole units, each behind its length, all escaped.

    Args:
        data: of the packet, as mp4, Matroska and FLV hold it.
        length_size: bytes of a length.
        is_slice: whether a unit holds a picture, by its first byte; other units some encoders escape badly.
    """
    at = 0
    while at < len(data):
        start = at + length_size
        at = start + int.from_bytes(data[at:start], "big")
        unit = data[start:at]
        if at > len(data):
            return False
        # Zeros behind the end of a unit are allowed.
        if unit and is_slice(unit[0]) and _IN_UNIT.search(unit.rstrip(b"\x00")):
            return False
    return True


def no_escapes_missing(data: bytes) -> bool:
    """Whether units of H.264 or HEVC that start codes separate are escaped."""
    return _BETWEEN_START_CODES.search(data) is None


def no_long_run(data: bytes) -> bool:
    """Whether a packet of VP8 or VP9 is free of long runs of zeros."""
    return _ZEROS not in data
