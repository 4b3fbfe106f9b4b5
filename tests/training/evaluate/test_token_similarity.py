"""Token similarity: known tokens, and the same mean over undamaged identities on any number of ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import rows_of
from tiny_models import mtd_model

from training.data.batch import Batch
from training.evaluate.encoded import Encoded, encode
from training.evaluate.token_similarity import mean_token_similarity, token_similarity


def test_equal_tokens_have_similarity_one_and_orthogonal_ones_zero() -> None:
    assert token_similarity(torch.ones(4, 8)) == pytest.approx(1)
    assert token_similarity(torch.eye(4)) == pytest.approx(0)
    assert math.isnan(token_similarity(torch.ones(1, 8)))


def test_it_is_the_mean_over_undamaged_identities_on_any_number_of_ranks(make_batch) -> None:
    model = mtd_model().eval()
    batch = make_batch(people=4)
    with torch.no_grad():
        each = [token_similarity(tokens_LD) for tokens_LD in model.encode(batch)]

    def encoded(batch: Batch) -> list[Encoded]:
        return encode(model, [(batch, batch.keys)], torch.device("cpu"))

    assert mean_token_similarity(encoded(batch)) == pytest.approx(sum(each) / 4, rel=1e-4)
    other: list[object] = []
    mean_token_similarity(encoded(rows_of(batch, [2, 3])), gather=lambda own: other.append(own) or [own])
    shared = mean_token_similarity(encoded(rows_of(batch, [0, 1])), gather=lambda own: [own, *other])
    assert shared == pytest.approx(sum(each) / 4, rel=1e-4)
    damaged = replace(batch, valid_B=torch.tensor([True, False, False, False]))
    assert mean_token_similarity(encoded(damaged)) == pytest.approx(each[0], rel=1e-4)
    assert mean_token_similarity([]) is None
