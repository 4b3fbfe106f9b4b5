"""Which packets of VP8 and VP9 are key frames, by their first byte: libvpx does not report it."""

from __future__ import annotations

from collections.abc import Callable


def vp8_key(data: bytes) -> bool:
    """RFC 6386, section 9.1: the lowest bit of a frame is 0 for a key frame."""
    return bool(data) and not data[0] & 1


def vp9_key(data: bytes) -> bool:
    """VP9 bitstream specification, section 6.2: marker 2, profile, no shown existing frame, frame type 0."""
    if not data or data[0] >> 6 != 2:
        return False
    # Profile 3 has a reserved bit before the two flags.
    flags = data[0] >> (1 if data[0] >> 4 & 3 == 3 else 2)
    return not flags & 0b11


IS_KEY: dict[str, Callable[[bytes], bool]] = {"vp8": vp8_key, "vp9": vp9_key}
"""By FFmpeg's name of the codec."""
