"""From the usable photographs of a person to identities of eight images: who is alike, and which go together.

Pure functions of what was measured. Photographs with neighbouring names are often of one day, so an identity takes
every k-th of them, and its images span all days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.types import Floats
from pipeline.photos.config import PhotoPeople
from shards.schema import IMAGES_PER_IDENTITY, Quality


@dataclass(frozen=True)
class Eight:
    """An identity: places in the list of a person's usable photographs.

    Attributes:
        candidates: photographs that it was chosen from, ascending.
        chosen: (round, place) of its eight images, ascending; the round is 0, or higher for a repetition.
    """

    candidates: tuple[int, ...]
    chosen: tuple[tuple[int, int], ...]


def typical_cosines(embeddings: Floats) -> NDArray[np.float64]:
    """(N,) cosine of each face to the most typical one: that with the largest sum of cosines to all.

    Args:
        embeddings: (N, D) unit vectors, N >= 1.
    """
    cosines = embeddings.astype(np.float64) @ embeddings.astype(np.float64).T
    found: NDArray[np.float64] = cosines[int(cosines.sum(axis=1).argmax())]
    return found


def eights(qualities: Sequence[Quality], config: PhotoPeople) -> list[Eight]:
    """Make as many identities as there can be, each of the best eight of its candidates.

    Args:
        qualities: of the person's usable photographs, in their order; of one metric.
        config: whether and how often.

    Returns:
        No identity where there are too few photographs. Every photograph is a candidate of exactly one otherwise.
    """
    count = len(qualities)
    if count < IMAGES_PER_IDENTITY:
        if config.fill_from is None or count < config.fill_from:
            return []
        chosen = [divmod(image, count) for image in range(IMAGES_PER_IDENTITY)]
        return [Eight(tuple(range(count)), tuple(chosen))]
    groups = count // IMAGES_PER_IDENTITY
    groups = min(groups, config.max_identities or groups)
    return [_best(qualities, range(first, count, groups)) for first in range(groups)]


def _best(qualities: Sequence[Quality], candidates: Sequence[int]) -> Eight:
    def badness(place: int) -> tuple[float, int]:
        quality = qualities[place]
        return (-quality.value if quality.higher_is_better else quality.value), place

    best = sorted(sorted(candidates, key=badness)[:IMAGES_PER_IDENTITY])
    return Eight(tuple(candidates), tuple((0, place) for place in best))
