"""Makes FFmpeg report all damage that it finds: the decoder, its options and its messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ERROR_DETECTION = "crccheck+bitstream+buffer+explode"
"""FFmpeg's `err_detect`: check what is cheap to check, and raise on errors instead of going on."""
STRICTER = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders in place of FFmpeg's own, which read past the end of damaged VP8 and VP9 data without an error."""


def strict_decoder(codec: Any) -> Any:
    """The decoder that reports most damage, on one thread.

    Args:
        codec: the codec context of a stream.
    """
    import av

    name = STRICTER.get(codec.codec.canonical_name)
    if name is not None:
        extradata = codec.extradata
        codec = av.CodecContext.create(name, "r")
        codec.extradata = extradata
    codec.thread_type, codec.thread_count = "NONE", 1
    codec.copy_opaque = True
    # dav1d checks the end of every tile's data in its strict mode only.
    codec.options = {"err_detect": ERROR_DETECTION, "strict": "strict"}
    return codec


@contextmanager
def listening() -> Iterator[list[Any]]:
    """The list of FFmpeg's errors, which grows as they come."""
    import av.logging

    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    # A message that repeats itself belongs to another packet.
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_level(before)


def reports_damage(messages: list[Any]) -> bool:
    """Whether FFmpeg has reported an error since the last call."""
    import av.logging

    damaged = any(level <= av.logging.ERROR for level, _, _ in messages)
    messages.clear()
    return damaged


def without_discard(packet: Any) -> Any:
    """A copy of the packet whose frame the decoder shows: an intact hidden key frame counts too."""
    import av

    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    for kind in packet.iter_sidedata():
        copy.set_sidedata(kind)
    return copy
