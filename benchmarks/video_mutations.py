"""Ways to damage a video file, each a pure function of its bytes and a random generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, int, np.random.Generator], bytes]
"""From the file, the offset of its first coded frame and a generator to the damaged file."""


def random_bytes(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Overwrite 1 to 20 single bytes anywhere."""
    out = bytearray(data)
    for at in rng.integers(0, len(out), rng.integers(1, 21)):
        out[at] = rng.integers(0, 256)
    return bytes(out)


def bit_flips(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Flip 1 to 8 single bits of the stream."""
    out = bytearray(data)
    for at in rng.integers(min(stream, len(out) - 1), len(out), rng.integers(1, 9)):
        out[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def stream_head(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Overwrite 64 to 1024 bytes within the first 4 KiB of the stream."""
    start = stream + int(rng.integers(0, 4096 - 1024))
    return _overwrite(data, start, rng.bytes(int(rng.integers(64, 1025))))


def box_headers(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Overwrite 1 to 8 bytes of what is not the stream: boxes, tables, elements."""
    out = bytearray(data)
    places = [*range(min(stream, len(out))), *range(_end_of_stream(data), len(out))] or [0]
    for at in rng.choice(places, rng.integers(1, 9)):
        out[at] = rng.integers(0, 256)
    return bytes(out)


def hole(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Take out 64 to 4096 bytes of the stream; everything behind moves."""
    start = int(rng.integers(min(stream, len(data) - 1), len(data)))
    return data[:start] + data[start + int(rng.integers(64, 4097)) :]


def zeros(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Zero 64 to 4096 bytes of the stream, as a lost block of a disk does."""
    start = int(rng.integers(min(stream, len(data) - 1), len(data)))
    return _overwrite(data, start, bytes(int(rng.integers(64, 4097))))


def truncation(data: bytes, stream: int, rng: np.random.Generator) -> bytes:
    """Keep the first 40 to 99.5 percent."""
    return data[: int(len(data) * rng.uniform(0.4, 0.995))]


MUTATIONS: dict[str, Mutation] = {
    "random bytes": random_bytes,
    "bit flips": bit_flips,
    "stream head": stream_head,
    "box headers": box_headers,
    "hole": hole,
    "zeros": zeros,
    "truncation": truncation,
}


def _overwrite(data: bytes, start: int, new: bytes) -> bytes:
    return (data[:start] + new + data[start + len(new) :])[: len(data)]


def _end_of_stream(data: bytes) -> int:
    """Where the index of an mp4 begins when it stands at the end."""
    at = data.rfind(b"moov")
    return at - 4 if at > len(data) // 2 else len(data)
