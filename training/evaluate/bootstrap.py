"""Bootstrap intervals over persons: how much a figure would vary if other persons were held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
Floats = NDArray[np.float64]


def interval(figure: Callable[..., Floats], *values_P: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of a figure over P persons.

    Args:
        figure: from means over persons, (RESAMPLES,) each, to the figure.
        values_P: (P,) value of each person; all resampled together.

    Returns:
        Lower and upper end. The same values give the same interval.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993.
    """
    persons = len(values_P[0])
    chosen_RP = np.random.default_rng(0).integers(persons, size=(RESAMPLES, persons))
    found_R = figure(*(values[chosen_RP].mean(axis=1) for values in values_P))
    low, high = np.quantile(found_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
