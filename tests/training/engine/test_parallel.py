"""However a step is cut up and computed, its loss and its gradients are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import rows_of
from flow_runs import SCRATCH, as_trained, flow_config
from tiny_models import TINY, mtd_config, mtd_model
from torch import nn
from torch.distributed import GradBucket

from training.config import Run
from training.data.batch import Batch
from training.engine.parallel import ParallelModel, whole
from training.engine.processes import World, processes
from training.model import IdentityModel, build_model
from training.representations.omniid import OmniIDEncoder


@pytest.fixture
def world() -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are so small that threads only wait for each other
    with processes(deterministic=True) as joined:
        yield joined
    torch.set_num_threads(threads)


def parallel(world: World, **run: Any) -> ParallelModel:
    return ParallelModel(mtd_model(), Run(precision="fp32", **run), world)


def gradients(model: ParallelModel) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        for name, parameter in model.parameters.items()
    }


def cut(batch: Batch, size: int) -> list[Batch]:
    return [rows_of(batch, range(first, first + size)) for first in range(0, len(batch.keys), size)]


def learned(model: ParallelModel, batches: list[Batch]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses (R,) and the gradients of a step."""
    targets = sum(batch.target_count for batch in batches)
    return model.backward(batches, targets), gradients(model)


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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bfloat16_gives_the_same_gradients_with_activation_checkpointing(
    world: World, make_batch: Any, strategy: str
) -> None:
    batch, run = make_batch(people=2), {"precision": "bf16", "strategy": strategy}
    plain, recomputed = (
        learned(ParallelModel(mtd_model(), Run(**run, activation_checkpointing=share), world), [batch])
        for share in (False, True)
    )
    assert torch.equal(plain[0], recomputed[0])
    assert all(torch.equal(plain[1][name], gradient) for name, gradient in recomputed[1].items())
    _, exact = learned(parallel(world), [batch])
    cosines = {
        name: torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0).item()
        for name, gradient in plain[1].items()
        if exact[name].norm() > 1e-4
    }
    assert min(cosines.values()) > 0.9, cosines


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


BOTH = {"mtd": {"weight": 1.0}, "flow": {"scratch": SCRATCH, "side": 16, "weight": 0.5}}
WEIGHTS = {"mtd": 1.0, "flow": 0.5}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_gradient_of_two_decoders_is_the_weighted_sum_of_theirs(
    world: World, make_batch: Any, strategy: str
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    config = flow_config(None, None, decoders=BOTH)

    def made(weights: dict[str, float], how: str = "ddp") -> ParallelModel:
        model = as_trained(build_model(config)).train()
        return ParallelModel(model, Run(precision="fp32", strategy=how), world, weights)

    joint = made(WEIGHTS, strategy)
    losses_R, found = learned(joint, [batch])
    # A weight of 0 leaves one decoder's gradient.
    (mtd_R, of_mtd), (flow_R, of_flow) = (
        learned(made({"mtd": mtd, "flow": 1 - mtd}), [batch]) for mtd in (1.0, 0.0)
    )
    torch.testing.assert_close(losses_R, mtd_R, rtol=1e-5, atol=0)
    torch.testing.assert_close(losses_R, flow_R, rtol=1e-5, atol=0)
    assert joint.weighted(losses_R).item() == pytest.approx((losses_R[0] + 0.5 * losses_R[1]).item())
    assert_close(found, {name: of_mtd[name] + 0.5 * of_flow[name] for name in found})
    shared = [name for name in found if name.startswith("representation.")]
    assert any(of_mtd[name].abs().max() > 0 and of_flow[name].abs().max() > 0 for name in shared)
    for prefix, other in (("decoders.mtd.", of_flow), ("decoders.flow.", of_mtd)):
        own = [name for name in found if name.startswith(prefix)]
        assert max(found[name].abs().max().item() for name in own) > 0
        assert max(other[name].abs().max().item() for name in own) == 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_frozen_representation_is_left_out_of_gradients_and_of_what_is_sent(
    world: World, make_batch: Any, tmp_path: Path, strategy: str
) -> None:
    torch.manual_seed(3)
    OmniIDEncoder(TINY).save_pretrained(tmp_path)
    section = {"size": "tiny", "weights": str(tmp_path), "frozen": True}
    model: IdentityModel = build_model(mtd_config(representation=section))
    before = {name: weight.clone() for name, weight in model.representation.state_dict().items()}
    ran = ParallelModel(model, Run(precision="fp32", strategy=strategy), world)
    sent: list[int] = []
    if strategy == "ddp":
        # DDP rejects a function whose annotations are strings, as they are in this file.
        ran._module.register_comm_hook(None, lambda _, bucket: noting(sent, bucket))
    _, found = learned(ran, [make_batch(people=2, inputs=2, targets=1)])
    assert all(name.startswith("decoders.mtd.") for name in found)
    assert all(weight.grad is None for weight in model.representation.parameters())
    after = {name: whole(weight) for name, weight in model.representation.state_dict().items()}
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    if strategy == "ddp":
        assert sorted(sent) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)


def noting(sent: list[int], bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Notes whose gradients DDP is about to send, and sends nothing: there is one rank."""
    sent += [id(parameter) for parameter in bucket.parameters()]
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Layers(nn.Module):
    """A model that compiles in seconds: it fits a colour to the images of a batch."""

    METHODS = ()
    names = ("layers",)

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.GELU()) for _ in range(count))

    def forward(self, batch: Batch) -> torch.Tensor:
        colours = batch.images_BKSSC.float().mean(dim=(2, 3)) / 255
        found = colours
        for layer in self.layers:
            found = layer(found)
        return ((found - colours).abs().sum(dim=(1, 2)) * batch.valid_B).sum()[None]

    def blocks(self) -> Iterator[nn.Module]:
        yield from self.layers


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts what is compiled from here on: captured and differentiated as ever, but not turned into C++."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]


def two_layers(world: World, **run: Any) -> ParallelModel:
    torch.manual_seed(0)
    return ParallelModel(Layers(2), Run(precision="fp32", **run), world)


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
    model = Layers(8)
    passes = [0] * 8
    for number, layer in enumerate(model.layers):
        # The first part of a layer, because the block itself is called once whatever it does.
        def count(*_: Any, number: int = number) -> None:
            passes[number] += 1

        layer[0].register_forward_pre_hook(count)
    learned(
        ParallelModel(model, Run(precision="fp32", activation_checkpointing=share), world),
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
        with compiled.evaluating() as model:
            model(make_batch(people=people, inputs=2, targets=1))
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
    model = ParallelModel(mtd_model(), Run(precision="bf16", strategy=strategy), world)
    loss, found = learned(model, [batch])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected_loss.item(), rel=2e-2)
    assert loss.item() != expected_loss.item()
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters.values()} == {torch.float32}


def test_warm_up_leaves_no_trace_in_weights_or_gradients(world: World, make_batch: Any) -> None:
    model = parallel(world)
    before = {name: parameter.detach().clone() for name, parameter in model.parameters.items()}
    model.warm_up(make_batch(people=1, inputs=2, targets=1))
    assert all(parameter.grad is None for parameter in model.parameters.values())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.parameters.items())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_evaluating_with_other_weights_does_not_leak_into_the_next_step(
    world: World, make_batch: Any, strategy: str
) -> None:
    batch = make_batch(people=2, inputs=2, targets=1)
    model = parallel(world, strategy=strategy)
    expected, _ = learned(model, [batch])
    kept = [parameter.detach().clone() for parameter in model.parameters.values()]
    with model.evaluating() as network:
        for parameter in model.parameters.values():
            parameter.zero_()
        other = network.losses("mtd", batch, network.encode(batch))
        assert not other.requires_grad
        assert not network.training
        for parameter, tensor in zip(model.parameters.values(), kept, strict=True):
            parameter.copy_(tensor)
    again, _ = learned(model, [batch])
    assert again.item() == expected.item()
    assert model.model.training
