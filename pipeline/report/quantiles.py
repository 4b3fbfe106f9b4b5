"""Quantiles of any number of values in little memory: exact for a few, of known accuracy for many.

Up to `EXACT` values are kept as they are. Beyond, only counts of fine bins remain. A bin holds the values that
share sign, exponent and the first 12 bits of the mantissa, so its centre is within 2**-13 (0.012%) of each. The
bins do not depend on the values, so one pass is enough. The smallest and the largest value stay exact.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
EXACT = 2**16
"""Values that are kept: half a megabyte."""
DROPPED_BITS = 40
"""Of the 52 bits of a mantissa; 12 remain, as many as the page's three digits need."""


class Quantiles:
    """Takes values in parts and tells their quantiles."""

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = math.inf, -math.inf
        self._kept: list[Values] | None = []
        self._codes = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)

    def add(self, values: Values) -> None:
        """Take (N,) finite values."""
        if not len(values):
            return
        self.count += len(values)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if self._kept is not None:
            self._kept.append(values.astype(np.float64))
            if self.count <= EXACT:
                return
            values, self._kept = np.concatenate(self._kept), None
        self._count(values)

    def at(self, *shares: float) -> tuple[float, ...]:
        """The quantiles, interpolated linearly between neighbouring values as `numpy.quantile` does.

        Args:
            shares: from 0 to 1.

        Raises:
            ValueError: there are no values.
        """
        if not self.count:
            raise ValueError("no values have no quantiles")
        if self._kept is not None:
            return tuple(float(value) for value in np.quantile(np.concatenate(self._kept), shares))
        return tuple(self._between((self.count - 1) * share) for share in shares)

    def _count(self, values: Values) -> None:
        codes, counts = np.unique(_codes(values), return_counts=True)
        merged, places = np.unique(np.concatenate([self._codes, codes]), return_inverse=True)
        sums = np.bincount(places, np.concatenate([self._counts, counts]), len(merged))
        self._codes, self._counts = merged, sums.astype(np.int64)

    def _between(self, place: float) -> float:
        before = math.floor(place)
        lower, upper = self._ranked(before), self._ranked(math.ceil(place))
        return lower + (upper - lower) * (place - before)

    def _ranked(self, rank: int) -> float:
        """The value of a rank, counted from 0."""
        if rank in (0, self.count - 1):
            return self.high if rank else self.low
        code = int(self._codes[np.searchsorted(np.cumsum(self._counts), rank, side="right")])
        return min(max(_centre(code), self.low), self.high)


def _codes(values: Values) -> NDArray[np.int64]:
    """The bin of each value; bins are in the order of the values."""
    sizes = np.abs(values).view(np.int64) >> DROPPED_BITS
    codes: NDArray[np.int64] = np.where(values < 0, -1 - sizes, sizes)
    return codes


def _centre(code: int) -> float:
    size = code if code >= 0 else -1 - code
    if size == 0:
        return 0.0
    value = np.int64((size << DROPPED_BITS) + (1 << (DROPPED_BITS - 1))).view(np.float64)
    return float(value if code >= 0 else -value)
