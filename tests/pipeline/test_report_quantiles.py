"""Quantiles of values that come in parts: those of numpy, exactly for a few and to 0.012% for many."""

from __future__ import annotations

import numpy as np
import pytest
from histograms import histogram
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import quantiles
from pipeline.report.distributions import Extent, HistogramCounter
from pipeline.report.quantiles import EXACT, Quantiles

SHARES = (0, 0.05, 0.5, 0.95, 1)
numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=200)


def taken(values: list[float], size: int) -> Quantiles:
    found = Quantiles()
    for start in range(0, len(values), size):
        found.add(np.array(values[start : start + size]))
    return found


@given(numbers, st.integers(1, 50))
def test_of_a_few_values_they_are_exact(values: list[float], size: int) -> None:
    assert taken(values, size).at(*SHARES) == tuple(np.quantile(values, SHARES))


@given(numbers, st.integers(1, 50))
def test_of_many_values_they_are_as_near_as_promised(values: list[float], size: int) -> None:
    found = Quantiles()
    found._kept = None  # as if more than EXACT values had come
    for start in range(0, len(values), size):
        found.add(np.array(values[start : start + size]))
    expected = np.quantile(values, SHARES)
    # An interpolated value lies between two values, each with its own error.
    error = 2.0**-13 * np.abs(values).max() + 1e-12
    assert np.abs(np.array(found.at(*SHARES)) - expected).max() <= error
    assert (found.low, found.high, found.count) == (min(values), max(values), len(values))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 500.0])
def test_beyond_the_limit_only_bins_are_kept(scale: float) -> None:
    values = np.random.default_rng(3).gamma(3, scale, 3 * EXACT)
    found = Quantiles()
    for part in np.array_split(values, 50):
        found.add(part)
    expected = np.quantile(values, SHARES)
    np.testing.assert_allclose(found.at(*SHARES), expected, rtol=2**-13)
    assert found.at(0, 1) == (values.min(), values.max())
    assert len(found._codes) < EXACT
    assert quantiles.EXACT == EXACT


def test_no_values_have_no_quantiles() -> None:
    with pytest.raises(ValueError, match="no quantiles"):
        Quantiles().at(0.5)


@given(numbers, st.integers(1, 50))
def test_a_histogram_of_parts_is_that_of_the_whole(values: list[float], size: int) -> None:
    parts = [np.array(values[start : start + size]) for start in range(0, len(values), size)]
    extent = Extent()
    for part in parts:
        extent.add(part)
    counter = HistogramCounter(extent)
    for part in parts:
        counter.add(part)
    expected, found = histogram(np.array(values)), counter.histogram()
    assert expected is not None
    assert found.edges.tolist() == expected.edges.tolist()
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.quantiles == expected.quantiles
    assert found.total == len(values)
