"""However a step is cut up and computed, its loss and its gradients are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from training.config import Mtd, Run
from training.data.batch import Batch
from training.engine.parallel import ParallelStage
from training.engine.processes import World, processes
from training.models.mtd import MtdStage
from training.models.sizes import SIZES


@pytest.fixture
def world() -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are so small that threads only wait for each other
    with processes(deterministic=True) as joined:
        yield joined
    torch.set_num_threads(threads)


def parallel(world: World, **run: Any) -> ParallelStage:
    torch.manual_seed(0)
    return ParallelStage(MtdStage(SIZES["tiny"], Mtd()), Run(precision="fp32", **run), world)


def gradients(stage: ParallelStage) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        for name, parameter in stage.parameters.items()
    }


def cut(batch: Batch, size: int) -> list[Batch]:
    parts = []
    for first in range(0, len(batch.keys), size):
        rows = slice(first, first + size)
        parts.append(Batch(**{field.name: getattr(batch, field.name)[rows] for field in fields(batch)}))
    return parts


def learned(stage: ParallelStage, batches: list[Batch]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    parts = sum(stage.stage.parts(batch) for batch in batches)
    return stage.backward(batches, parts), gradients(stage)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_small_micro_batches_add_up_to_the_large_one(world: World, make_batch: Any) -> None:
    batch = make_batch(people=4, inputs=2, targets=1)
    whole_loss, whole = learned(parallel(world), [batch])
    loss, found = learned(parallel(world), cut(batch, 1))
    assert loss.item() == pytest.approx(whole_loss.item(), rel=1e-6)
    assert_close(found, whole)


def test_damaged_rows_leave_the_mean_to_the_others(world: World, make_batch: Any) -> None:
    batch = make_batch(people=4, inputs=2, targets=1)
    batch.valid_B[2:] = False
    expected_loss, expected = learned(parallel(world), cut(batch, 2)[:1])
    loss, found = learned(parallel(world), cut(batch, 1))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    assert_close(found, expected)


def test_a_step_of_nothing_but_damaged_rows_has_loss_zero_and_no_gradient(
    world: World, make_batch: Any
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    batch.valid_B[:] = False
    loss, found = learned(parallel(world), [batch])
    assert loss == 0
    assert all(gradient.count_nonzero() == 0 for gradient in found.values())


@pytest.mark.parametrize(
    "how",
    [
        {"activation_checkpointing": True},
        {"activation_checkpointing": 0.5},
        {"strategy": "fsdp"},
        {"strategy": "fsdp", "activation_checkpointing": True},
    ],
    ids=str,
)
def test_how_the_machines_run_it_changes_neither_names_nor_gradients(
    world: World, make_batch: Any, how: dict[str, Any]
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    expected_loss, expected = learned(parallel(world), [batch])
    loss, found = learned(parallel(world, **how), cut(batch, 1))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_close(found, expected)


class Layers(nn.Module):
    """A stage that compiles in seconds: it fits a colour to the images of a batch."""

    METHODS = ()
    frozen_digest = ""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.GELU()) for _ in range(count))

    def forward(self, batch: Batch) -> torch.Tensor:
        colours = batch.images_BKSSC.float().mean(dim=(2, 3)) / 255
        found = colours
        for layer in self.layers:
            found = layer(found)
        return ((found - colours).abs().sum(dim=(1, 2)) * batch.valid_B).sum()

    def parts(self, batch: Batch) -> int:
        return int(batch.valid_B.sum())

    def blocks(self) -> Iterator[nn.Module]:
        yield from self.layers


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts what is compiled from here on: captured and differentiated as ever, but not turned into C++."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]


def two_layers(world: World, **run: Any) -> ParallelStage:
    torch.manual_seed(0)
    return ParallelStage(Layers(2), Run(precision="fp32", **run), world)


@pytest.mark.parametrize(
    ("share", "twice"),
    [
        (False, ""),
        (0.25, "   x   x"),
        (0.5, " x x x x"),
        (0.75, " xxx xxx"),
        (True, "xxxxxxxx"),
    ],
)
def test_a_share_of_the_blocks_is_computed_twice_evenly_spread(
    world: World, make_batch: Any, share: float, twice: str
) -> None:
    torch.manual_seed(0)
    stage = Layers(8)
    passes = [0] * 8
    for number, layer in enumerate(stage.layers):
        # The first part of a layer, because the block itself is called once whatever it does.
        def count(*_: Any, number: int = number) -> None:
            passes[number] += 1

        layer[0].register_forward_pre_hook(count)
    learned(
        ParallelStage(stage, Run(precision="fp32", activation_checkpointing=share), world),
        [make_batch(people=2, inputs=2, targets=1)],
    )
    assert passes == [2 if mark == "x" else 1 for mark in twice.ljust(8)]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_blocks_compute_the_same_under_the_same_names(
    world: World, make_batch: Any, graphs: Callable[[], int], strategy: str
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    expected_loss, expected = learned(two_layers(world), [batch])
    compiled = two_layers(world, compile=True, activation_checkpointing=True, strategy=strategy)
    loss, found = learned(compiled, cut(batch, 1))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_close(found, expected)
    assert graphs() >= 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_validation_with_shapes_of_its_own_compiles_nothing(
    world: World, make_batch: Any, graphs: Callable[[], int]
) -> None:
    compiled = two_layers(world, compile=True)
    learned(compiled, [make_batch(people=2, inputs=2, targets=1)])
    before = graphs()
    assert before >= 1
    for people in range(3, 6):
        with compiled.evaluating() as stage:
            stage(make_batch(people=people, inputs=2, targets=1))
    learned(compiled, [make_batch(people=2, inputs=2, targets=1)])
    assert graphs() == before
    learned(compiled, [make_batch(people=6, inputs=2, targets=1)])
    assert graphs() > before  # a step of another shape would


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bf16_is_near_and_keeps_weights_and_gradients_in_fp32(
    world: World, make_batch: Any, strategy: str
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    expected_loss, _ = learned(parallel(world), [batch])
    torch.manual_seed(0)
    stage = ParallelStage(MtdStage(SIZES["tiny"], Mtd()), Run(precision="bf16", strategy=strategy), world)
    loss, found = learned(stage, [batch])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected_loss.item(), rel=2e-2)
    assert loss.item() != expected_loss.item()
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert {parameter.dtype for parameter in stage.parameters.values()} == {torch.float32}


def test_settling_leaves_no_trace_in_weights_or_gradients(world: World, make_batch: Any) -> None:
    stage = parallel(world)
    before = {name: parameter.detach().clone() for name, parameter in stage.parameters.items()}
    stage.settle(make_batch(people=1, inputs=2, targets=1))
    assert all(parameter.grad is None for parameter in stage.parameters.values())
    assert all(torch.equal(before[name], parameter) for name, parameter in stage.parameters.items())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_evaluating_with_other_weights_does_not_leak_into_the_next_step(
    world: World, make_batch: Any, strategy: str
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    stage = parallel(world, strategy=strategy)
    expected, _ = learned(stage, [batch])
    kept = [parameter.detach().clone() for parameter in stage.parameters.values()]
    with stage.evaluating() as network:
        for parameter in stage.parameters.values():
            parameter.zero_()
        other = network.draw(batch, network.identify(batch)).loss_BN
        assert not other.requires_grad
        for parameter, tensor in zip(stage.parameters.values(), kept, strict=True):
            parameter.copy_(tensor)
    again, _ = learned(stage, [batch])
    assert again.item() == expected.item()
    assert stage.stage.training
