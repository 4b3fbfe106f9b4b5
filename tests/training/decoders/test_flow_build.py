"""The flow decoder from a configuration: its initial weights, and what its keys change."""

from __future__ import annotations

import pytest
import torch
from flow_runs import flow_config

from training.model import build_model, meta_model
from training.models.sizes import SIZES


def test_initial_weights_depend_only_on_the_seed(tiny_flux, prompts) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    for flux in (tiny_flux, None):
        one, same, other = (build_model(flow_config(flux, prompts, seed=seed)) for seed in (0, 0, 1))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
        assert not torch.equal(one.representation.query_LD, other.representation.query_LD)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
def test_another_prompt_text_length_or_guidance_reaches_flux(tiny_flux, prompts, make_batch) -> None:
    losses = {
        build_model(flow_config(tiny_flux, prompts, flow))(make_batch()).item()
        for flow in ({}, {"text_tokens": 32}, {"guidance": 3.5}, {"prompt": "a photo"})
    }
    assert len(losses) == 4


def test_images_are_decoded_large_enough_for_representation_and_decoder(tiny_flux, prompts) -> None:
    sides = [meta_model(flow_config(tiny_flux, prompts, {"side": side})).needs.side for side in (128, 32)]
    assert sides == [128, SIZES["tiny"].side]
