"""The training loop of the small programs: the optimiser that they ask for, and the lines that they print."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.experiments.training_loop import fit, learning_rate

PEAK, WARMUP_STEPS, BETAS, WEIGHT_DECAY = 0.1, 2, (0.5, 0.75), 0.25


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def loss_of(network: nn.Linear, step: int) -> torch.Tensor:
    inputs = torch.linspace(-step - 4, 9, 12).view(4, 3)
    return network(inputs).square().mean()


def test_weights_are_those_of_adamw_with_warm_up_cosine_decay_and_clipped_gradients(
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected, steps, losses = layer(), 5, []
    optimiser = torch.optim.AdamW(expected.parameters(), lr=1, betas=BETAS, weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        warm = (step + 1) / WARMUP_STEPS if step < WARMUP_STEPS else 1.0
        optimiser.param_groups[0]["lr"] = PEAK * warm * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        loss = loss_of(expected, step)
        loss.backward()
        assert nn.utils.clip_grad_norm_(expected.parameters(), 1.0) > 1
        optimiser.step()
        losses.append(float(loss.detach()))

    found = layer()

    def loss_at(step: int) -> tuple[torch.Tensor, float]:
        loss = loss_of(found, step)
        return loss, 10 * float(loss.detach())

    how = {"peak": PEAK, "warmup_steps": WARMUP_STEPS, "betas": BETAS, "weight_decay": WEIGHT_DECAY}
    fit(found.parameters(), loss_at, steps, reported="ten losses", **how)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"trained 5 of 5 steps, ten losses {10 * sum(losses) / steps:.4f}, ")


def test_one_step_is_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    network = layer()
    before = network.weight.detach().clone()
    fit(network.parameters(), lambda step: (loss_of(network, step), 2.0), 1, peak=PEAK, warmup_steps=1)
    assert not torch.equal(network.weight, before)
    assert capsys.readouterr().out.startswith("trained 1 of 1 steps, loss 2.0000, ")


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [learning_rate(2.0, step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == pytest.approx(2.0, rel=0.03)
    assert rates[100] == pytest.approx(0.0)
