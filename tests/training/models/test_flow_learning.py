"""Decoder 2: what of it learns, when, and that FLUX is left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from flow_runs import flow_config as config
from flow_runs import flow_stage as build

from training.models.flow import Sampling


def test_at_step_0_only_the_values_get_a_gradient_and_everything_does_later(flow, make_batch) -> None:
    def moved() -> dict[str, bool]:
        flow.zero_grad()
        flow(make_batch()).backward()
        return {
            name: bool(parameter.grad.abs().sum() > 0)
            for name, parameter in flow.named_parameters()
            if parameter.requires_grad
        }

    first = moved()
    assert {name for name, moves in first.items() if moves} == {name for name in first if "to_v_ip" in name}
    torch.optim.SGD([p for p in flow.parameters() if p.requires_grad], lr=0.1).step()
    assert not [name for name, moves in moved().items() if not moves and "visual.ln_post.bias" not in name]


def test_nothing_of_flux_is_trained_or_kept_in_a_checkpoint(flow, tiny_flux) -> None:
    from diffusers import FluxTransformer2DModel

    names = {name for name, parameter in flow.named_parameters() if parameter.requires_grad}
    roots = {name.split(".")[0] for name in names}
    assert roots == {"encoder", "projection", "transformer"}
    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    assert not {name.removeprefix("transformer.") for name in names} & set(plain.state_dict())
    assert len([name for name in names if "_ip." in name]) == 8  # 2 blocks, K and V, weight and bias


@pytest.mark.slow
def test_a_transformer_of_its_own_learns_with_everything_else_who_is_who(make_batch) -> None:
    """Flat colours, one a person: in noise, only the identity says which."""
    stage = build(config(None, None, {"side": 16}))
    assert all(parameter.requires_grad for parameter in stage.parameters())
    assert stage.transformer.transformer_blocks[0].attn.processor.to_v_ip[0].weight.abs().max() > 0
    batch = make_batch(people=2, inputs=1, targets=2)
    colours = torch.tensor([[230, 30, 30], [30, 30, 230]], dtype=torch.uint8)
    batch = replace(
        batch, images_BKSSC=colours[:, None, None, None, :].expand(batch.images_BKSSC.shape).clone()
    )
    optimiser = torch.optim.AdamW(stage.parameters(), lr=2e-3)
    for step in range(60):
        loss = stage(replace(batch, seeds_B=torch.tensor([step, -step - 1]))) / stage.parts(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in stage.parameters())
    tokens = stage.identify(batch).detach()
    own, swapped = (stage.draw(batch, found).loss_BN.mean().item() for found in (tokens, tokens.flip(0)))
    assert swapped > 1.5 * own
    drawn = stage.sample(tokens, torch.tensor([3, 3]), 16, Sampling((1.0, 0.75, 0.5, 0.25, 0.0), 1.0))
    redder = drawn[:, 0].mean(dim=(1, 2)) - drawn[:, 2].mean(dim=(1, 2))
    assert redder[0] > 0.2
    assert redder[1] < -0.2
