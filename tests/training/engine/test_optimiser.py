"""The learning rate follows its curve, decay spares what it must, and steps that are not finite change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.config import Optimiser
from training.engine.optimiser import Updates, decays, learning_rate

CURVE = Optimiser(learning_rate=1e-3, warmup_steps=10, final_fraction=0.1)


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    rates = [learning_rate(step, 111, CURVE) for step in range(111)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1e-3)
    assert rates[60] == pytest.approx(0.55e-3)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[10:] == sorted(set(rates[10:]), reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (3, 3), (2, 0)])
def test_very_short_runs_have_a_learning_rate(steps: int, warmup: int) -> None:
    config = Optimiser(learning_rate=1e-3, warmup_steps=warmup)
    assert all(0 < learning_rate(step, steps, config) <= 1e-3 for step in range(steps))


def test_decay_spares_biases_norms_and_learned_tokens() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(3, 2, 2))
    found = {name for name, parameter in module.named_parameters() if decays(name, parameter)}
    assert found == {"0.weight", "2.weight"}
    assert not decays("representation.query_LD", torch.zeros(4, 8))


def updates(weight_decay: float = 0.0, **settings: float) -> tuple[nn.Linear, Updates]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 2)
    config = Optimiser(learning_rate=0.1, warmup_steps=0, weight_decay=weight_decay, **settings)
    return layer, Updates(dict(layer.named_parameters()), config, steps=100)


def step(layer: nn.Linear, optimiser: Updates, number: int, scale: float = 1.0) -> torch.Tensor:
    loss = (layer(torch.ones(3, 4)).square().sum() * scale).float()
    loss.backward()
    return optimiser.apply(number, loss.detach())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_weights_and_moments_alone_and_is_counted(bad: float) -> None:
    layer, optimiser = updates()
    step(layer, optimiser, 0)
    before = {name: tensor.clone() for name, tensor in optimiser.state().items()}
    weights = layer.weight.detach().clone()

    step(layer, optimiser, 1, scale=bad)

    assert torch.equal(layer.weight, weights)
    after = optimiser.state()
    assert after.pop("skipped") == 1
    assert before.pop("skipped") == 0
    assert [name for name in before if not torch.equal(before[name], after[name])] == []

    step(layer, optimiser, 2)
    assert not torch.equal(layer.weight, weights)
    assert optimiser.skipped == 1


def test_a_loss_that_is_not_finite_is_enough_even_when_the_gradient_is() -> None:
    layer, optimiser = updates()
    weights = layer.weight.detach().clone()
    layer(torch.ones(3, 4)).sum().backward()
    optimiser.apply(0, torch.tensor(math.nan))
    assert torch.equal(layer.weight, weights)
    assert optimiser.skipped == 1


def test_the_norm_is_that_before_clipping_and_what_is_applied_is_clipped() -> None:
    layer, optimiser = updates(clip_norm=0.5)
    norm = step(layer, optimiser, 0, scale=1000)
    assert norm > 100
    moments = torch.cat([optimiser.state()[f"{name}.exp_avg"].flatten() for name in ("weight", "bias")])
    assert moments.norm() == pytest.approx(0.5 * (1 - 0.9), rel=1e-4)


def test_gradients_are_gone_after_a_step() -> None:
    layer, optimiser = updates()
    step(layer, optimiser, 0)
    assert layer.weight.grad is None


def test_decay_shrinks_weights_without_a_gradient_and_leaves_biases() -> None:
    layer, optimiser = updates(weight_decay=0.5)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    optimiser.apply(0, torch.tensor(0.0))
    assert torch.allclose(layer.weight, weight * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("tower", [0.5, 1.0])
def test_representation_and_its_tower_learn_at_their_shares_of_the_rate(scale: float, tower: float) -> None:
    shares = {
        "representation.mix.weight": scale,
        "representation.clip.visual.conv1.weight": scale * tower,
        "decoders.mtd.mix.weight": 1.0,
        "decoders.mtd.clip.visual.conv1.weight": 1.0,
    }
    parameters = {name: torch.nn.Parameter(torch.ones(2, 2)) for name in shares}
    config = Optimiser(
        learning_rate=1e-2, warmup_steps=0, representation_scale=scale, tower_scale=tower, weight_decay=0
    )
    updates = Updates(parameters, config, steps=100)
    for parameter in parameters.values():
        parameter.grad = torch.ones(2, 2)
    updates.apply(0, torch.tensor(1.0))
    moved = {name: (1 - parameter.detach()).max().item() for name, parameter in parameters.items()}
    assert moved == pytest.approx({name: share * 1e-2 for name, share in shares.items()}, rel=1e-3)
