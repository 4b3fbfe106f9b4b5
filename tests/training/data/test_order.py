"""The order of samples: every identity once an epoch, equal on every rank, and exact when a run is resumed."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.section import ConfigError
from training.data.order import Order, Place, Share, check_enough
from training.errors import TrainingError


@st.composite
def runs(draw: st.DrawFn) -> tuple[Order, int, list[tuple[int, int]]]:
    """An order, a batch, and several ways (world size, per process) to share that batch out."""
    batch = draw(st.integers(1, 24))
    identities = draw(st.integers(batch, 100))
    divisors = [n for n in range(1, batch + 1) if batch % n == 0]
    ways = []
    for _ in range(draw(st.integers(1, 3))):
        world_size = draw(st.sampled_from(divisors))
        of_process = batch // world_size
        per_process = draw(st.sampled_from([n for n in range(1, of_process + 1) if of_process % n == 0]))
        ways.append((world_size, per_process))
    return Order(identities, draw(st.integers(0, 2**63 - 1))), batch, ways


def step_places(order: Order, batch: int, way: tuple[int, int], step: int) -> list[Place]:
    """What all ranks together take in a step, from streams that start at this step, in the global order."""
    world_size, per_process = way
    taken = {}
    for rank in range(world_size):
        share = Share(batch, per_process, rank, world_size)
        for positions in islice(share.micro_batches(step), share.accumulation):
            assert len(positions) == per_process
            taken.update(zip(positions, order.places(positions), strict=True))
    assert sorted(taken) == list(range(step * batch, (step + 1) * batch))
    return [taken[position] for position in sorted(taken)]


@given(runs(), st.integers(1, 3))
def test_every_identity_comes_exactly_once_an_epoch_over_any_world_size(
    run: tuple[Order, int, list[tuple[int, int]]], epochs: int
) -> None:
    order, batch, ways = run
    steps = -(-epochs * order.identities // batch)
    places = [place for step in range(steps) for place in step_places(order, batch, ways[0], step)]
    for epoch in range(epochs):
        rows = [place.row for place in places if place.epoch == epoch]
        assert sorted(rows) == list(range(order.identities))


@given(runs(), st.integers(0, 10**7), st.integers(1, 4))
def test_every_rank_has_equally_many_micro_batches_of_a_step(
    run: tuple[Order, int, list[tuple[int, int]]], step: int, steps: int
) -> None:
    _, batch, ways = run
    for world_size, per_process in ways:
        shares = [Share(batch, per_process, rank, world_size) for rank in range(world_size)]
        assert {share.accumulation for share in shares} == {batch // world_size // per_process}
        sizes = [
            [len(part) for part in islice(share.micro_batches(step), share.accumulation * steps)]
            for share in shares
        ]
        assert all(found == [per_process] * (shares[0].accumulation * steps) for found in sizes)


@given(runs(), st.integers(0, 60), st.integers(0, 20))
def test_resuming_at_any_step_goes_on_with_the_samples_that_would_have_come(
    run: tuple[Order, int, list[tuple[int, int]]], start: int, further: int
) -> None:
    order, batch, ways = run
    for world_size, per_process in ways:
        for rank in range(world_size):
            share = Share(batch, per_process, rank, world_size)
            undisturbed = islice(share.micro_batches(0), (start + further) * share.accumulation)
            expected = [order.places(part) for part in undisturbed][start * share.accumulation :]
            resumed = islice(share.micro_batches(start), further * share.accumulation)
            assert [Order(order.identities, order.seed).places(part) for part in resumed] == expected


@given(runs(), st.integers(0, 60))
def test_a_run_that_goes_on_with_another_number_of_processes_sees_the_same_samples(
    run: tuple[Order, int, list[tuple[int, int]]], step: int
) -> None:
    order, batch, ways = run
    for further, way in enumerate(ways):
        # Each way takes up the run where the one before it left off.
        alone = order.places(range((step + further) * batch, (step + further + 1) * batch))
        assert step_places(order, batch, way, step + further) == alone


@given(st.integers(2, 10**9), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_epochs_and_seeds_have_orders_of_their_own(identities: int, seed: int, epoch: int) -> None:
    identities = identities % 1000 + 20
    order = Order(identities, seed)
    assert order.rows(epoch).tolist() != order.rows(epoch + 1).tolist()
    assert order.rows(epoch).tolist() != Order(identities, seed ^ 1).rows(epoch).tolist()


def test_every_identity_is_about_equally_often_at_every_place_of_an_epoch() -> None:
    order = Order(10, seed=3)
    epochs = 4000
    counts = [[0] * 10 for _ in range(10)]
    for epoch in range(epochs):
        for place, row in enumerate(order.rows(epoch).tolist()):
            counts[place][row] += 1
    # Standard deviation of a count is 19; five of them.
    assert all(abs(count - epochs / 10) < 95 for row in counts for count in row)


def test_the_order_is_the_same_for_ever() -> None:
    assert Order(8, seed=0).rows(0).tolist() == [4, 1, 0, 6, 7, 3, 5, 2]
    assert Order(8, seed=0).rows(1).tolist() == [3, 0, 5, 6, 4, 7, 1, 2]


def test_a_batch_that_cannot_be_shared_out_is_refused_with_the_values_that_can() -> None:
    with pytest.raises(ConfigError, match=r"batch=12 .*per_process=5 .*may be 1, 2, 3, 6$"):
        Share(batch=12, per_process=5, rank=0, world_size=2)
    with pytest.raises(ConfigError, match="batch must be a multiple of the 5 processes"):
        Share(batch=12, per_process=1, rank=0, world_size=5)


def test_fewer_identities_than_a_batch_are_refused() -> None:
    check_enough(8, 8, "mfhq")
    with pytest.raises(
        TrainingError, match=r"mfhq has 7 training identities.*batch of 8.*Set batch to 7 or less"
    ):
        check_enough(7, 8, "mfhq")
