"""Times and rates are written in units that people read."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.units import duration, rate

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86_399, "1 d 0 h"),
        (300_000, "3 d 11 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@given(st.floats(0, 1e8))
def test_a_duration_is_true_to_its_smaller_unit(seconds: float) -> None:
    parts = re.findall(r"(\d+) (s|min|h|d)", text := duration(seconds))
    assert " ".join(" ".join(part) for part in parts) == text
    told = sum(int(number) * UNITS[unit] for number, unit in parts)
    assert abs(told - seconds) <= UNITS[parts[-1][1]] / 2 + 1e-6


@given(st.lists(st.floats(0, 1e7), min_size=2, max_size=2).map(sorted))
def test_a_longer_time_never_reads_shorter(seconds: list[float]) -> None:
    found = []
    for each in seconds:
        words = duration(each).split()
        found.append(
            sum(int(number) * UNITS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
        )
        assert found[-1] == pytest.approx(each, rel=0.025, abs=0.5)
    assert all(before <= after for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("per_s", "expected"),
    [
        (1234.5, "1,234 videos/s"),
        (3.44, "3.4 videos/s"),
        (0.2, "12 videos/min"),
        (0.02, "1.2 videos/min"),
        (0.001, "3.6 videos/h"),
        (0.0001, "0.4 videos/h"),
    ],
)
def test_a_rate_has_a_number_that_is_easy_to_read(per_s: float, expected: str) -> None:
    assert rate(per_s, "videos") == expected
