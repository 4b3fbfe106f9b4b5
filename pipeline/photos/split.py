"""Which people are held out: drawn by the seed and their names alone, so the others' splits stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from pipeline.photos.config import PhotoSplit


def draw(name: str, seed: int) -> float:
    """The number of a person, in [0, 1), uniform over names."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def held_out(people: Collection[str], config: PhotoSplit) -> frozenset[str]:
    """The people of the test split.

    With `test_people`, exactly so many, or all where there are fewer: those with the least draws, so that one more
    person replaces one of them at most. Else everyone whose draw is below `test_fraction`.

    Args:
        people: names of those who have an identity.
        config: how many are held out.
    """
    if config.test_people is None:
        return frozenset(name for name in people if draw(name, config.seed) < config.test_fraction)
    ordered = sorted(people, key=lambda name: (draw(name, config.seed), name))
    return frozenset(ordered[: config.test_people])
