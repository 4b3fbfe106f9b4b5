"""Hashes in place of random numbers: equal on every machine and in every version, without a state to save.

Python's `hash` changes from process to process, and the streams of numpy's and torch's generators may change with
their versions; a resumed run must get the numbers of an undisturbed one.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray


def hash64(*parts: str | int) -> int:
    """64 bits that depend on every part and on where one part ends and the next begins."""
    return hashes64(1, *parts)[0]


def hashes64(count: int, *parts: str | int) -> tuple[int, ...]:
    """At most 8 such numbers, each independent of the others."""
    # repr of text puts quotation marks around it and escapes those inside it.
    text = ",".join(map(repr, parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8 * count).digest()
    return struct.unpack(f"<{count}Q", digest)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each number; a bijection (Steele, Lea and Flood, 2014; Vigna's constants)."""
    # Arrays of uint64 wrap around without a warning, as is wanted here.
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
