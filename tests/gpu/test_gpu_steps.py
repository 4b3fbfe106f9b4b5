"""A step on this device: DDP, FSDP, bf16 and compiled blocks give the gradients of the plain network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from training.config import Run
from training.data.batch import Batch
from training.decoders.mtd import MaskedTransformerDecoder
from training.engine.parallel import ParallelModel
from training.engine.processes import World
from training.model import IdentityModel
from training.models.sizes import SIZES
from training.representations.omniid import OmniIDEncoder

HOW = [
    {"strategy": "ddp"},
    {"strategy": "fsdp"},
    {"strategy": "ddp", "activation_checkpointing": True},
    {"strategy": "fsdp", "activation_checkpointing": 0.5},
]


def new_model() -> IdentityModel:
    torch.manual_seed(0)
    size = SIZES["tiny"]
    return IdentityModel(OmniIDEncoder(size), {"mtd": MaskedTransformerDecoder(size, 0.95)})


def parallel(world: World, **run: Any) -> ParallelModel:
    return ParallelModel(new_model(), Run(**{"precision": "fp32", **run}), world)


def learned(model: ParallelModel, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients, on the CPU."""
    (loss,) = model.backward(batches, sum(batch.target_count for batch in batches))
    gradients = {
        name: (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).cpu()
        for name, parameter in model.parameters.items()
        if (grad := parameter.grad) is not None
    }
    assert gradients.keys() == model.parameters.keys()
    return loss.item(), gradients


def plain(world: World, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the model by itself on this device."""
    model = new_model().to(world.device)
    (loss,) = model(batch.to(world.device)) / batch.target_count
    loss.backward()
    return loss.item(), {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}


def relative_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all gradients, as a share of their norm."""
    assert found.keys() == expected.keys()
    difference = sum((found[name] - expected[name]).square().sum().item() for name in expected)
    return (difference / sum(tensor.square().sum().item() for tensor in expected.values())) ** 0.5


@pytest.mark.parametrize("how", HOW, ids=str)
def test_ddp_and_fsdp_give_the_gradients_of_the_plain_network(
    world: World, noise_batch: Callable[..., Batch], how: dict[str, Any]
) -> None:
    batch = noise_batch(people=2, inputs=2, targets=1)
    expected_loss, expected = plain(world, batch)
    loss, found = learned(parallel(world, **how), [batch])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bf16_is_near_and_leaves_weights_and_gradients_in_fp32(
    world: World, noise_batch: Callable[..., Batch], strategy: str
) -> None:
    batch = noise_batch(people=2, inputs=2, targets=1)
    expected_loss, expected = plain(world, batch)
    stage = parallel(world, precision="bf16", strategy=strategy)
    loss, found = learned(stage, [batch])
    assert loss == pytest.approx(expected_loss, rel=2e-2)
    assert 1e-5 < relative_error(found, expected) < 8e-2
    tensors = [*found.values(), *stage.parameters.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_the_same_step_twice_gives_the_same_bits(world: World, noise_batch: Callable[..., Batch]) -> None:
    batch = noise_batch(people=4, inputs=3, targets=4)
    (loss, found), (again, repeated) = (learned(parallel(world, precision="bf16"), [batch]) for _ in range(2))
    assert loss == again
    assert [name for name in found if not torch.equal(found[name], repeated[name])] == []


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_blocks_give_the_same_gradients(
    world: World, noise_batch: Callable[..., Batch], strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.device.type == "cpu":
        # Captured and differentiated as ever, but not turned into C++, which would take minutes.
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batch = noise_batch(people=2, inputs=2, targets=1)
    expected_loss, expected = plain(world, batch)
    compiled = parallel(world, compile=True, strategy=strategy)
    loss, found = learned(compiled, [batch])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert relative_error(found, expected) < 1e-4
    counters = torch._dynamo.utils.counters
    assert (
        counters["stats"]["unique_graphs"] >= 3
    )  # a kind of block each: CLIP's, cross-attention, self-attention
    assert not counters["graph_break"]
