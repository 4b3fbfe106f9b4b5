"""Finds pairs of identities that show the same footage: another encoding, size, crop or span of it.

Two tracks are compared at every shift in time. The concordance of two series is 1 when they are equal, near 0 when
they have nothing in common; a different amplitude lowers it too. The score of a shift is the mean concordance of
four families of measurements: pose, place, expression, picture. In other footage one or two may agree by chance
for a few seconds, but not all four.

Tracks that share less than `LEAST_SHARED_S`, or whose face moves too little to be told from noise, are no match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.people.motion import (
    CHANNELS,
    HZ,
    Motion,
    by_family,
    motion_of,
    ticks_of,
    without_moving_mean,
)

LEAST_SHARE = 0.5
"""Least part of the shorter track's time that the longer one shows too."""
LEAST_SHARED_S = 2.5
LEAST_SHARED_TICKS = 12
"""Least number of measurements that can be compared: tracks of long videos have one in a second or two."""
SHORT_SCORE, SHORT_S = 0.87, 2.5
LONG_SCORE, LONG_S = 0.62, 6.0
"""Least score of a match for two lengths of the shared time; in proportion between them. docs/curation.md has the
measurements."""

BLOCK = 64
"""Tracks on each side of a block of pairs. Within a block, the transform of each is made once."""
BLOCK_SIZE = 2**16
"""Tracks on a side times the size of their transforms: bounds the memory of a block to about 40 MB."""
ROUNDING = 0.01
"""How much the transforms may change a time in seconds."""
SCREEN = 0.35
"""A shift whose score over all shifts at once is this far below is examined. That score is only near the true one:
at the ends of a track, the moving mean knows less than in a longer track of the same footage."""
SHIFTS = 3
"""Shifts that are examined, each with its neighbours."""
LEAST_ENERGY = 1e-3
"""Part of the greatest energy at any shift; below it, rounding would decide."""

Pairs = NDArray[np.int64]
Spectra = NDArray[np.complex64]


@dataclass(frozen=True)
class Match:
    """Two tracks that show the same footage.

    Attributes:
        first: row of one, the smaller.
        second: row of the other.
        offset_s: what is at t in the first is at t + offset_s in the second.
        shared_s: time that both show.
        first_s: time that the first shows a usable face.
        second_s: the same of the second.
        score: mean concordance, at most 1.
    """

    first: int
    second: int
    offset_s: float
    shared_s: float
    first_s: float
    second_s: float
    score: float

    @property
    def share(self) -> float:
        """The shared time as a part of the shorter one's."""
        return min(1.0, self.shared_s / min(self.first_s, self.second_s))


def near_duplicates(fingerprints: Sequence[bytes], pairs: Pairs) -> list[Match]:
    """Verify which pairs of tracks show the same footage.

    The result for a pair depends on its two fingerprints alone, and not on their order.

    Args:
        fingerprints: of the tracks, from `pipeline.stages.fingerprint`.
        pairs: (P, 2) rows that may be near-duplicates, such as those of one person.

    Returns:
        The matches by rows, each pair once.

    Raises:
        ValueError: a fingerprint is damaged, or a row does not exist.
    """
    pairs = np.unique(np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(fingerprints)):
        raise ValueError(
            f"pairs name rows {pairs.min()} to {pairs.max()} of {len(fingerprints)} fingerprints"
        )
    found = [match for block in _blocks(fingerprints, pairs) for match in _matches(block, fingerprints)]
    return sorted(found, key=lambda match: (match.first, match.second))


def least_score(shared_s: NDArray[Any]) -> NDArray[np.float64]:
    """The score from which footage is taken for the same. Chance agrees less often for longer."""
    least: NDArray[np.float64] = np.interp(shared_s, (SHORT_S, LONG_S), (SHORT_SCORE, LONG_SCORE))
    return least


@dataclass(frozen=True)
class _Block:
    """Pairs of few tracks that need transforms of one size: by first row, those that it is compared with."""

    size: int
    seconds: dict[int, list[int]]


def _blocks(fingerprints: Sequence[bytes], pairs: Pairs) -> Iterator[_Block]:
    ticks = {row: ticks_of(fingerprints[row]) for row in np.unique(pairs).tolist()}
    by_place: dict[tuple[int, int, int], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for first, second in pairs.tolist():
        # It holds every shift, so that the end of one track does not meet the start of the other.
        size = 1 << max(ticks[first] + ticks[second] - 1, 1).bit_length()
        side = max(1, min(BLOCK, BLOCK_SIZE // size))
        # Which of two is shifted follows from their content, so that the rounding does too.
        one, other = sorted((first, second), key=lambda row: (len(fingerprints[row]), fingerprints[row]))
        by_place[size, first // side, second // side][one].append(other)
    for (size, _, _), seconds in sorted(by_place.items()):
        yield _Block(size, seconds)


def _matches(block: _Block, fingerprints: Sequence[bytes]) -> Iterator[Match]:
    rows = {*block.seconds, *(row for rows in block.seconds.values() for row in rows)}
    motions = {row: motion_of(fingerprints[row]) for row in rows}
    transformed = {row: _Transformed(motion, block.size) for row, motion in motions.items()}
    for first, seconds in block.seconds.items():
        promising = _promising_shifts(transformed[first], [transformed[row] for row in seconds], block.size)
        for second, shifts in zip(seconds, promising, strict=True):
            pair = (motions[first], motions[second])
            found = [agreement for shift in shifts if (agreement := _agreement(*pair, shift)) is not None]
            if found:
                yield _match((first, second), pair, max(found, key=lambda agreement: agreement.margin))


class _Transformed:
    """Fourier transforms over time of a motion, each along the last axis."""

    def __init__(self, motion: Motion, size: int) -> None:
        self.ticks = len(motion.known)
        self.seconds = motion.seconds
        values = without_moving_mean(motion.values, motion.known).T
        rows = (values, by_family(values**2, 0), motion.known[None], motion.represents[None])
        spectra = np.fft.rfft(np.concatenate(rows), size, axis=1).astype(np.complex64)
        self.values: Spectra = spectra[:CHANNELS]
        self.energy: Spectra = spectra[CHANNELS:-2]
        self.known: Spectra = spectra[-2]
        self.represents: Spectra = spectra[-1]


def _promising_shifts(first: _Transformed, others: list[_Transformed], size: int) -> list[list[int]]:
    """Of each of the others, the shifts in ticks by which it may agree."""
    values, energy, known, represents = (
        np.conj(part) for part in (first.values, first.energy, first.known, first.represents)
    )
    cross = by_family(np.stack([values * other.values for other in others]), 1)
    energies = np.stack([energy * other.known + known * other.energy for other in others])
    counts = np.stack([known * other.known for other in others])
    times = np.stack([(known * other.represents, represents * other.known) for other in others])

    scores = _concordance(_at_all_shifts(cross, size), _at_all_shifts(energies, size)).mean(axis=1)
    shared_s = _at_all_shifts(times, size).max(axis=1)
    least_s = np.array([_least_shared_s(first.seconds, other.seconds) for other in others])
    allowed = (shared_s >= least_s[:, None] - ROUNDING) & (
        _at_all_shifts(counts, size) >= LEAST_SHARED_TICKS - ROUNDING
    )
    margins = np.where(allowed, scores - least_score(shared_s), -np.inf)
    return [
        [shift if shift < other.ticks else shift - size for shift in shifts]
        for shifts, other in zip(_peaks(margins), others, strict=True)
    ]


def _least_shared_s(first_s: float, second_s: float) -> float:
    return max(LEAST_SHARED_S, LEAST_SHARE * min(first_s, second_s))


def _peaks(margins: NDArray[Any]) -> list[list[int]]:
    """Of each row, the best places, each with the place before and after it; they go round."""
    before, after = (np.roll(margins, step, axis=1) for step in (1, -1))
    peaks = (margins > -SCREEN) & (margins >= before) & (margins >= after)
    found: list[list[int]] = [[] for _ in margins]
    size = margins.shape[1]
    for row in np.flatnonzero(peaks.any(axis=1)).tolist():
        places = np.flatnonzero(peaks[row])
        best = places[np.argsort(-margins[row, places], kind="stable")][:SHIFTS]
        found[row] = sorted({int(place + step) % size for place in best for step in (-1, 0, 1)})
    return found


def _at_all_shifts(spectra: NDArray[Any], size: int) -> NDArray[np.float32]:
    """Sums of products for each shift, from the products of the transforms; negative shifts come last."""
    return np.fft.irfft(spectra, size, axis=-1).astype(np.float32)


def _concordance(cross: NDArray[Any], energies: NDArray[Any]) -> NDArray[Any]:
    """Twice the sum of products over the sum of squares, along shifts (the last axis); 0 where nothing moves.

    Source: Lin, "A concordance correlation coefficient to evaluate reproducibility", 1989, for series without
        mean.
    """
    least = np.maximum(energies.max(axis=-1, keepdims=True) * LEAST_ENERGY, 1e-6)
    found: NDArray[Any] = np.clip(2 * cross / np.maximum(energies, least), -1, 1)
    return found


@dataclass(frozen=True)
class _Agreement:
    """How two tracks agree at one shift; `margin` is the score above the least."""

    offset_s: float
    shared_s: float
    score: float
    margin: float


def _agreement(first: Motion, second: Motion, shift: int) -> _Agreement | None:
    """How two tracks agree, by the moving mean of what both show; None when that is no match."""
    start, stop = max(0, -shift), min(len(first.known), len(second.known) - shift)
    rows_a, rows_b = slice(start, stop), slice(start + shift, stop + shift)
    both = first.known[rows_a] * second.known[rows_b]
    shared_s = max(
        float((motion.represents[rows] * both).sum()) for motion, rows in ((first, rows_a), (second, rows_b))
    )
    if (
        shared_s < _least_shared_s(first.seconds, second.seconds) - ROUNDING
        or both.sum() < LEAST_SHARED_TICKS
    ):
        return None
    a, b = (
        without_moving_mean(motion.values[rows] * both[:, None], both)
        for motion, rows in ((first, rows_a), (second, rows_b))
    )
    cross, energies = by_family((a * b).sum(axis=0), 0), by_family((a**2 + b**2).sum(axis=0), 0)
    score = float(_concordance(cross[:, None], energies[:, None]).mean())
    margin = score - float(least_score(np.array(shared_s)))
    offset_s = (shift + second.start - first.start) / HZ
    return _Agreement(offset_s, shared_s, score, margin) if margin >= 0 else None


def _match(rows: tuple[int, int], motions: tuple[Motion, Motion], found: _Agreement) -> Match:
    (first, first_s), (second, second_s) = sorted(
        (row, round(motion.seconds, 2)) for row, motion in zip(rows, motions, strict=True)
    )
    offset_s = found.offset_s if rows[0] == first else -found.offset_s
    return Match(
        first,
        second,
        round(offset_s, 2) + 0.0,  # no -0.0
        round(found.shared_s, 2),
        first_s,
        second_s,
        round(found.score, 3),
    )
