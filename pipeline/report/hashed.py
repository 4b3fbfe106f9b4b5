"""Names as 64-bit hashes: what the report remembers of every video, identity and person.

134,077 hashes take 1 MB where the names themselves, as Python's strings, take more than 10. Two different names
among a million share a hash in one of 37 million datasets, and the report would then count one too few.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def hashes(names: Iterable[str]) -> Hashes:
    """(N,) hashes, the same in every process."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def joined(parts: Iterable[Hashes]) -> Hashes:
    """All parts in one array; empty when there are none."""
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def contains(ordered: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """(N,) whether each of `wanted` is one of `ordered`, which is sorted."""
    if not len(ordered):
        return np.zeros(len(wanted), dtype=bool)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[places] == wanted
    return found
