"""AdamW's fused kernel on this device: a step that is not finite changes nothing and is counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.config import Optimiser
from training.engine.optimiser import Updates

ON_A_GPU = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
CONFIG = Optimiser(learning_rate=0.1, warmup_steps=0, weight_decay=0.1)


def new_updates(device: torch.device) -> tuple[nn.Linear, Updates]:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).to(device)
    return layer, Updates(dict(layer.named_parameters()), CONFIG, steps=100)


def step(layer: nn.Linear, updates: Updates, number: int, scale: float = 1.0) -> torch.Tensor:
    loss = layer(torch.ones(3, 64, device=layer.weight.device)).square().sum() * scale
    loss.backward()
    return updates.apply(number, loss.detach())


def snapshot(layer: nn.Linear, updates: Updates) -> dict[str, torch.Tensor]:
    tensors = dict(layer.named_parameters()) | updates.state()
    return {name: tensor.detach().clone() for name, tensor in tensors.items() if name != "skipped"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(device: torch.device, bad: float) -> None:
    layer, updates = new_updates(device)
    step(layer, updates, 0)
    before = snapshot(layer, updates)

    step(layer, updates, 1, scale=bad)

    after = snapshot(layer, updates)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert int(updates.skipped) == 1
    step(layer, updates, 2)
    assert not torch.equal(layer.weight, before["weight"])
    assert int(updates.skipped) == 1


def test_a_loss_that_is_not_finite_is_enough(device: torch.device) -> None:
    layer, updates = new_updates(device)
    before = layer.weight.detach().clone()
    layer(torch.ones(3, 64, device=device)).sum().backward()
    updates.apply(0, torch.tensor(math.nan, device=device))
    assert torch.equal(layer.weight, before)
    assert int(updates.skipped) == 1


def test_the_fused_kernel_computes_what_adamw_does_by_its_formula(device: torch.device) -> None:
    layer, updates = new_updates(device)
    reference = nn.Linear(64, 32).double()
    reference.load_state_dict({name: tensor.cpu() for name, tensor in layer.state_dict().items()})
    adamw = torch.optim.AdamW(
        [
            {"params": [reference.weight], "weight_decay": CONFIG.weight_decay},
            {"params": [reference.bias], "weight_decay": 0.0},
        ],
        lr=CONFIG.learning_rate,
        betas=CONFIG.betas,
        foreach=False,
        fused=False,
    )
    for number in range(3):
        step(layer, updates, number)
        reference(torch.ones(3, 64, dtype=torch.float64)).square().sum().backward()
        nn.utils.clip_grad_norm_(reference.parameters(), CONFIG.clip_norm)
        for group in adamw.param_groups:
            group["lr"] = updates._adamw.param_groups[0]["lr"]
        adamw.step()
        adamw.zero_grad()
    torch.testing.assert_close(
        layer.weight.detach().cpu().double(), reference.weight.detach(), rtol=1e-4, atol=1e-5
    )


@ON_A_GPU
def test_the_host_does_not_wait_for_the_device(device: torch.device) -> None:
    layer, updates = new_updates(device)
    step(layer, updates, 0)
    torch.cuda.synchronize()
    with torch.cuda.device(device):
        torch.cuda.set_sync_debug_mode("error")  # raises at every call that waits
        try:
            step(layer, updates, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert int(updates.skipped) == 0
