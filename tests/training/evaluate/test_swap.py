"""The swap test: what it measures, on any number of processes."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from training.config import Mtd
from training.data.batch import Batch
from training.evaluate.swap import validate
from training.models.mtd import MtdStage
from training.models.sizes import SIZES

CPU = torch.device("cpu")
Share = list[tuple[Batch, Sequence[str]]]


@pytest.fixture(scope="module")
def stage() -> MtdStage:
    torch.manual_seed(0)
    made = MtdStage(SIZES["tiny"], Mtd())
    with torch.no_grad():  # as trained weights do, let identity tokens matter
        for block in made.decoder.cross:
            block.attention.out.weight.mul_(30)
        made.decoder.to_pixels.weight.mul_(5)
    return made


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    tensors = {
        name: getattr(batch, name)[list(rows)]
        for name in (
            *("images_BKSSC", "masks_BKSS", "inputs_BM", "input_valid_BM"),
            *("targets_BN", "valid_B", "seeds_B"),
        )
    }
    return Batch(**tensors, keys=tuple(batch.keys[row] for row in rows))


def losses(stage: MtdStage, batch: Batch, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return stage.draw(batch, tokens).loss_BN.mean(dim=1)


def mean_loss(stage: MtdStage, batch: Batch, tokens: torch.Tensor) -> float:
    return float(losses(stage, batch, tokens).mean())


def test_the_three_losses_are_those_of_own_other_and_one_input_s_tokens(stage, make_batch) -> None:
    batch = make_batch(people=3)
    figures = validate(stage, [(batch, ("a", "b", "c"))], CPU)
    tokens = stage.identify(batch)
    own = mean_loss(stage, batch, tokens)
    swapped = mean_loss(stage, batch, tokens[[1, 2, 0]])
    one_input = mean_loss(stage, batch, stage.identify(make_batch(people=3, inputs=1)))
    better = (losses(stage, batch, tokens) < losses(stage, batch, tokens[[1, 2, 0]])).float().mean()
    assert figures == {
        "val/loss_own": pytest.approx(own, rel=1e-5),
        "val/loss_swapped": pytest.approx(swapped, rel=1e-5),
        "val/loss_one_input": pytest.approx(one_input, rel=1e-5),
        "val/swap_ratio": pytest.approx(swapped / own, rel=1e-5),
        "val/one_input_ratio": pytest.approx(one_input / own, rel=1e-5),
        "val/own_better": pytest.approx(better.item()),
    }
    assert len({round(value, 6) for value in (own, swapped, one_input)}) == 3


def test_identities_of_one_person_do_not_stand_in_for_each_other(stage, make_batch) -> None:
    batch = make_batch(people=3)
    tokens = stage.identify(batch)
    figures = validate(stage, [(batch, ("a", "a", "b"))], CPU)
    assert figures["val/loss_swapped"] == pytest.approx(mean_loss(stage, batch, tokens[[2, 2, 0]]), rel=1e-5)


def test_micro_batches_make_no_difference(stage, make_batch) -> None:
    batch = make_batch(people=5)
    persons = ("a", "b", "b", "c", "d")
    whole = validate(stage, [(batch, persons)], CPU)
    parts: Share = [(rows_of(batch, [number]), (persons[number],)) for number in (4, 0, 3, 1, 2)]
    assert validate(stage, parts, CPU) == pytest.approx(whole, rel=1e-5)
    assert validate(stage, iter(parts), CPU) == pytest.approx(whole, rel=1e-5)


def test_blank_rows_count_for_nothing_and_stand_in_for_nobody(stage, make_batch) -> None:
    batch = make_batch(people=4)
    valid = torch.tensor([True, False, True, False])
    blank = replace(batch, valid_B=valid, keys=("k0", "k0", "k2", "k0"))
    blank.images_BKSSC[~valid] = 0
    assert validate(stage, [(blank, ("a", "", "b", ""))], CPU) == pytest.approx(
        validate(stage, [(rows_of(batch, [0, 2]), ("a", "b"))], CPU), rel=1e-5
    )


def test_with_one_person_nothing_is_swapped(stage, make_batch) -> None:
    figures = validate(stage, [(make_batch(people=2), ("a", "a"))], CPU)
    assert set(figures) == {"val/loss_own", "val/loss_one_input", "val/one_input_ratio"}


def test_without_identities_nothing_is_measured(stage) -> None:
    assert validate(stage, [], CPU) == {}


def test_the_stage_is_left_as_it_was(stage, make_batch) -> None:
    stage.zero_grad()
    validate(stage, [(make_batch(), ("a", "b", "c"))], CPU)
    assert all(weight.grad is None for weight in stage.parameters())


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_every_process_the_same_figures(
    stage, make_batch, processes: int
) -> None:
    batch, persons = make_batch(people=6), ("a", "b", "a", "c", "d", "e")
    alone = validate(stage, [(batch, persons)], CPU)
    shares = [
        [(rows_of(batch, rows), [persons[row] for row in rows])]
        for rows in (range(rank, 6, processes) for rank in range(processes))
    ]
    figures = run_together(shares, lambda share, gather: validate(stage, share, CPU, gather))
    assert all(figure == figures[0] for figure in figures)
    assert figures[0] == pytest.approx(alone, rel=1e-5)


def test_processes_send_each_other_no_more_than_the_tokens_that_are_swapped(stage, make_batch) -> None:
    batch, persons = make_batch(people=8), tuple("abcdefgh")
    # The first of the second process stands in for the last of the first one, and the other way round.
    shares = [[(rows_of(batch, rows), [persons[row] for row in rows])] for rows in (range(4), range(4, 8))]
    sent: list[int] = []

    def weigh(share: Share, gather: Callable[[Any], list[Any]]) -> dict[str, float]:
        def weighing(value: Any) -> list[Any]:
            sent.append(len(pickle.dumps(value)))
            return gather(value)

        return validate(stage, share, CPU, weighing)

    run_together(shares, weigh)
    of_one = stage.identify(rows_of(batch, [0])).nbytes
    assert 2 * of_one < sum(sent) < 3.5 * of_one


def run_together(
    shares: Sequence[Share], work: Callable[[Share, Callable[[Any], list[Any]]], dict[str, float]]
) -> list[dict[str, float]]:
    """Run threads in place of processes, which meet where they gather."""
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
