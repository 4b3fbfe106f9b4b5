"""Lines of progress: what is done, the rate, and the time left."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.progress import Progress, duration


def test_progress_has_rate_and_time_left_and_ends_with_the_total() -> None:
    lines: list[str] = []
    times = iter([0.0, 1.0, 11.0, 12.0, 30.0])
    progress = Progress("generated", "images", 8, lines.append, clock=lambda: next(times))
    for count in (1, 4, 1, 2):
        progress.advance(count)
    assert lines == [
        "generated 5 of 8 images, 0.455/s, 7 s left",
        "generated 8 of 8 images, 0.267/s",
    ]
    assert progress.done == 8


def test_large_numbers_and_rates_are_written_out() -> None:
    lines: list[str] = []
    times = iter([0.0, 5.0, 40.0, 80.0, 90.0])
    progress = Progress("latents of", "identities", 100_000, lines.append, clock=lambda: next(times))
    for count in (10, 390, 400, 99_200):
        progress.advance(count)
    assert lines == [
        "latents of 400 of 100,000 identities, 10.0/s, 2 h 46 min left",
        "latents of 800 of 100,000 identities, 10.0/s, 2 h 45 min left",
        "latents of 100,000 of 100,000 identities, 1,111.1/s",
    ]


def test_before_anything_is_done_the_time_left_is_not_known() -> None:
    lines: list[str] = []
    times = iter([0.0, 20.0])
    Progress("latents of", "identities", 10, lines.append, clock=lambda: next(times)).advance(0)
    assert lines == ["latents of 0 of 10 identities, 0/s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (700, "11 min 40 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86_390, "1 d 0 h"),
        (200_000, "2 d 8 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.lists(st.floats(0, 1e7), min_size=2, max_size=2).map(sorted))
def test_a_longer_time_never_reads_shorter(seconds: list[float]) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    found = []
    for each in seconds:
        words = duration(each).split()
        found.append(
            sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
        )
        assert found[-1] == pytest.approx(each, rel=0.025, abs=0.5)
    assert all(before <= after for before, after in pairwise(found))
