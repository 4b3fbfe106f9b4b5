"""The flow decoder: what of it learns, when, and that FLUX is left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from flow_runs import decoder_of, flow_config

from training.decoders.flow import Sampling
from training.model import build_model


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
    parts = {".".join(name.split(".")[: 3 if name.startswith("decoders.") else 1]) for name in names}
    assert parts == {"representation", "decoders.flow.projection", "decoders.flow.transformer"}
    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    assert not {name.removeprefix("decoders.flow.transformer.") for name in names} & set(plain.state_dict())
    assert len([name for name in names if "_ip." in name]) == 8  # 2 blocks, K and V, weight and bias


@pytest.mark.slow
def test_a_transformer_of_its_own_learns_with_everything_else_to_tell_identities_apart(make_batch) -> None:
    """Flat colours, one an identity: in noise, only the tokens say which."""
    model = build_model(flow_config(None, None, {"side": 16}))
    decoder = decoder_of(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert decoder.transformer.transformer_blocks[0].attn.processor.to_v_ip[0].weight.abs().max() > 0
    batch = make_batch(people=2, inputs=1, targets=2)
    colours = torch.tensor([[230, 30, 30], [30, 30, 230]], dtype=torch.uint8)
    batch = replace(
        batch, images_BKSSC=colours[:, None, None, None, :].expand(batch.images_BKSSC.shape).clone()
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(60):
        loss = model(replace(batch, seeds_B=torch.tensor([step, -step - 1]))) / batch.target_count
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    tokens = model.encode(batch).detach()
    own, swapped = (model.losses("flow", batch, found).mean().item() for found in (tokens, tokens.flip(0)))
    assert swapped > 1.5 * own
    images = decoder.sample(tokens, torch.tensor([3, 3]), 16, Sampling((1.0, 0.75, 0.5, 0.25, 0.0), 1.0))
    redder = images[:, 0].mean(dim=(1, 2)) - images[:, 2].mean(dim=(1, 2))
    assert redder[0] > 0.2
    assert redder[1] < -0.2


def test_the_values_of_a_new_adapter_start_as_configured(tiny_flux, prompts) -> None:
    def values(start: str | None, *, frozen: bool) -> float:
        config = flow_config(tiny_flux, prompts) if frozen else flow_config(None, None)
        flow = config.decoders.flow.model_copy(update={"adapter_init": start})
        model = build_model(
            config.model_copy(update={"decoders": config.decoders.model_copy(update={"flow": flow})})
        )
        return max(float(p.detach().abs().max()) for name, p in model.named_parameters() if "to_v_ip" in name)

    assert values(None, frozen=True) == values("zeros", frozen=True) == values("zeros", frozen=False) == 0
    assert values("small", frozen=True) > 0
    assert values(None, frozen=False) == values("small", frozen=False) > 0
