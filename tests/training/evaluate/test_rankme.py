"""RankMe and bootstrap intervals: numbers that are known beforehand come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import rows_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import mtd_model

from training.data.batch import Batch
from training.evaluate.bootstrap import interval
from training.evaluate.encoded import Encoded, encode
from training.evaluate.rankme import effective_rank, rankme

CPU = torch.device("cpu")


@pytest.mark.parametrize("directions", [1, 3, 7])
def test_rows_that_vary_equally_along_some_directions_have_that_rank(directions: int) -> None:
    rows = np.zeros((2 * directions, 20))
    for number in range(directions):
        rows[2 * number, number], rows[2 * number + 1, number] = 5.0, -5.0
    assert effective_rank(rows + 3.0) == pytest.approx(directions, rel=1e-3)


def test_equal_rows_have_rank_1() -> None:
    assert effective_rank(np.full((4, 8), 2.0)) == 1


def test_tokens_that_are_not_finite_give_a_figure_that_is_not_either() -> None:
    """A run whose weights are not finite ends with its own message, not in its validation."""
    assert not np.isfinite(effective_rank(np.full((4, 8), np.nan)))
    assert not np.isfinite(effective_rank(np.array([[1.0, 2.0], [np.inf, 3.0]])))


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_the_rank_is_between_1_and_what_rows_and_columns_allow(rows: int, columns: int, seed: int) -> None:
    found = effective_rank(np.random.default_rng(seed).normal(size=(rows, columns)))
    assert 1 - 1e-3 <= found <= min(rows - 1, columns) + 1e-3


def test_it_is_that_of_the_mean_tokens_of_undamaged_identities_on_any_number_of_ranks(make_batch) -> None:
    model = mtd_model().eval()
    batch = make_batch(people=6)
    with torch.no_grad():
        rows = model.encode(batch).mean(dim=1).double().numpy()

    def encoded(batch: Batch) -> list[Encoded]:
        return encode(model, [(batch, batch.keys)], CPU)

    alone = rankme(encoded(batch))
    assert alone == pytest.approx(effective_rank(rows), rel=1e-4)
    other_rank: list[object] = []
    rankme(encoded(rows_of(batch, [3, 4, 5])), gather=lambda own: other_rank.append(own) or [own])
    shared = rankme(encoded(rows_of(batch, [0, 1, 2])), gather=lambda own: [own, *other_rank])
    assert shared == pytest.approx(alone, rel=1e-4)
    damaged = replace(batch, valid_B=torch.tensor([True, True, True, False, False, False]))
    assert rankme(encoded(damaged)) == pytest.approx(effective_rank(rows[:3]), rel=1e-4)
    assert rankme(encoded(rows_of(batch, [0]))) is None


def test_an_interval_covers_the_mean_in_about_19_of_20_cases() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = interval(lambda mean: mean, generator.normal(3.0, 1.0, size=60))
        covered += low < 3.0 < high
    assert 0.88 < covered / 200 < 0.99


def test_an_interval_of_equal_values_is_that_value_and_ratios_are_resampled_together() -> None:
    assert interval(lambda mean: mean, np.full(5, 2.0)) == (2.0, 2.0)
    values = np.random.default_rng(0).uniform(1, 9, size=30)
    assert interval(np.divide, 3 * values, values) == pytest.approx((3.0, 3.0))
