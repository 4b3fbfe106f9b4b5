"""The swap test: what it measures, on any number of ranks."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from batches import rows_of
from tiny_models import mtd_model

from training.data.batch import Batch
from training.evaluate.bootstrap import interval
from training.evaluate.encoded import encode, single_rank
from training.evaluate.swap import swap_test, tokens_of_mismatched
from training.model import IdentityModel

CPU = torch.device("cpu")
Share = list[tuple[Batch, Sequence[str]]]


@pytest.fixture(scope="module")
def model() -> IdentityModel:
    made = mtd_model()
    decoder = made.decoder("mtd")
    with torch.no_grad():  # as trained weights do, let the reconstruction depend on the identity tokens
        for block in decoder.cross:
            block.attention.out.weight.mul_(30)
        decoder.to_pixels.weight.mul_(5)
    return made.eval()


def figures_of(
    model: IdentityModel, share: Any, gather: Callable[[Any], list[Any]] = single_rank
) -> dict[str, float]:
    encoded = encode(model, share, CPU)
    others = tokens_of_mismatched(encoded, gather=gather)
    return swap_test(model, "mtd", encoded, others, CPU, gather=gather)


def losses(model: IdentityModel, batch: Batch, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.losses("mtd", batch, tokens).mean(dim=1)


def mean_loss(model: IdentityModel, batch: Batch, tokens: torch.Tensor) -> float:
    return float(losses(model, batch, tokens).mean())


def test_the_three_losses_are_those_of_own_mismatched_and_one_input_s_tokens(model, make_batch) -> None:
    batch = make_batch(people=3)
    figures = figures_of(model, [(batch, ("a", "b", "c"))])
    tokens = model.encode(batch)
    own_3 = losses(model, batch, tokens)
    swapped_3 = losses(model, batch, tokens[[1, 2, 0]])
    one_3 = losses(model, batch, model.encode(make_batch(people=3, inputs=1)))
    own, swapped, one_input = (float(found.mean()) for found in (own_3, swapped_3, one_3))
    expected = {
        "loss_own": own,
        "loss_swapped": swapped,
        "loss_one_input": one_input,
        "swap_ratio": swapped / own,
        "one_input_ratio": one_input / own,
        "own_better": (own_3 < swapped_3).float().mean().item(),
    }
    for name, others_3 in (("swap_ratio", swapped_3), ("one_input_ratio", one_3)):
        low, high = interval(np.divide, others_3.double().numpy(), own_3.double().numpy())
        assert low < expected[name] < high
        expected |= {f"{name}_low": low, f"{name}_high": high}
    intervals = {"own_better_low", "own_better_high"}
    assert figures.keys() - intervals == expected.keys()
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert figures["own_better_low"] <= figures["own_better"] <= figures["own_better_high"]
    assert len({round(value, 6) for value in (own, swapped, one_input)}) == 3


def test_identities_of_one_person_are_no_mismatched_pair_and_a_person_counts_once(model, make_batch) -> None:
    batch = make_batch(people=3)
    tokens = model.encode(batch)
    figures = figures_of(model, [(batch, ("a", "a", "b"))])
    a_1, a_2, b = losses(model, batch, tokens[[2, 2, 0]]).tolist()
    assert figures["loss_swapped"] == pytest.approx(((a_1 + a_2) / 2 + b) / 2, rel=1e-5)
    a_1, a_2, b = losses(model, batch, tokens).tolist()
    assert figures["loss_own"] == pytest.approx(((a_1 + a_2) / 2 + b) / 2, rel=1e-5)


def test_micro_batches_make_no_difference(model, make_batch) -> None:
    batch = make_batch(people=5)
    persons = ("a", "b", "b", "c", "d")
    whole = figures_of(model, [(batch, persons)])
    parts: Share = [(rows_of(batch, [number]), (persons[number],)) for number in (4, 0, 3, 1, 2)]
    assert figures_of(model, parts) == pytest.approx(whole, rel=1e-5)
    assert figures_of(model, iter(parts)) == pytest.approx(whole, rel=1e-5)


def test_blank_rows_count_for_nothing_and_are_no_mismatched_identity(model, make_batch) -> None:
    batch = make_batch(people=4)
    valid = torch.tensor([True, False, True, False])
    blank = replace(batch, valid_B=valid, keys=("k0", "k0", "k2", "k0"))
    blank.images_BKSSC[~valid] = 0
    assert figures_of(model, [(blank, ("a", "", "b", ""))]) == pytest.approx(
        figures_of(model, [(rows_of(batch, [0, 2]), ("a", "b"))]), rel=1e-5
    )


def test_with_one_person_nothing_is_swapped(model, make_batch) -> None:
    figures = figures_of(model, [(make_batch(people=2), ("a", "a"))])
    assert set(figures) == {
        *("loss_own", "loss_one_input"),
        *("one_input_ratio", "one_input_ratio_low", "one_input_ratio_high"),
    }


def test_without_identities_nothing_is_measured(model) -> None:
    assert figures_of(model, []) == {}


def test_the_model_is_left_as_it_was(model, make_batch) -> None:
    model.zero_grad()
    figures_of(model, [(make_batch(), ("a", "b", "c"))])
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_gives_every_rank_the_same_figures(model, make_batch, ranks: int) -> None:
    batch, persons = make_batch(people=6), ("a", "b", "a", "c", "d", "e")
    alone = figures_of(model, [(batch, persons)])
    shares = [
        [(rows_of(batch, rows), [persons[row] for row in rows])]
        for rows in (range(rank, 6, ranks) for rank in range(ranks))
    ]
    figures = run_together(shares, lambda share, gather: figures_of(model, share, gather))
    assert all(figure == figures[0] for figure in figures)
    assert figures[0] == pytest.approx(alone, rel=1e-5)


def test_ranks_send_each_other_no_more_than_the_tokens_that_are_swapped(model, make_batch) -> None:
    batch, persons = make_batch(people=8), tuple("abcdefgh")
    # The first of the second rank is the mismatched identity of the last of the first one, and vice versa.
    shares = [[(rows_of(batch, rows), [persons[row] for row in rows])] for rows in (range(4), range(4, 8))]
    sent: list[int] = []

    def weigh(share: Share, gather: Callable[[Any], list[Any]]) -> dict[str, float]:
        def weighing(value: Any) -> list[Any]:
            sent.append(len(pickle.dumps(value)))
            return gather(value)

        return figures_of(model, share, weighing)

    run_together(shares, weigh)
    of_one = model.encode(rows_of(batch, [0])).nbytes
    assert 2 * of_one < sum(sent) < 3.5 * of_one


def run_together(
    shares: Sequence[Share], work: Callable[[Share, Callable[[Any], list[Any]]], dict[str, float]]
) -> list[dict[str, float]]:
    """Run threads in place of ranks; they meet where they gather."""
    barrier = threading.Barrier(len(shares), timeout=30)
    slots: list[Any] = [None] * len(shares)
    results: list[Any] = [None] * len(shares)
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        def gather(value: Any) -> list[Any]:
            slots[rank] = value
            barrier.wait()
            everything = list(slots)
            barrier.wait()
            return everything

        try:
            results[rank] = work(shares[rank], gather)
        except BaseException as error:
            errors.append(error)
            barrier.abort()  # the others need not wait

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread is stuck"
    if errors:
        raise errors[0]
    return results
