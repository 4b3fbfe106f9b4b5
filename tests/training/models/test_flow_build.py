"""Decoder 2 from a configuration: whose weights it begins with, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flow_runs import flow_config as config
from flow_runs import flow_stage as build

from training.errors import TrainingError
from training.models.build import images_side, meta_stage
from training.models.encoder import OmniIDEncoder
from training.models.sizes import SIZES


def test_initial_weights_follow_from_the_seed_alone(tiny_flux, prompts) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    for flux in (tiny_flux, None):
        one, same = (build(config(flux, prompts)) for _ in range(2))
        other = build(config(flux, prompts, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
        assert not torch.equal(one.encoder.query_LD, other.encoder.query_LD)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_text_or_another_guidance_is_told_to_flux(tiny_flux, prompts, make_batch) -> None:
    losses = {
        build(config(tiny_flux, prompts, flow))(make_batch()).item()
        for flow in ({}, {"text_tokens": 32}, {"guidance": 3.5}, {"prompt": "a photo"})
    }
    assert len(losses) == 4


def test_images_are_decoded_large_enough_for_encoder_and_decoder(tiny_flux, prompts) -> None:
    assert images_side(config(tiny_flux, prompts, {"side": 128})) == 128
    assert images_side(config(tiny_flux, prompts, {"side": 32})) == SIZES["tiny"].side


def test_the_encoder_goes_on_from_another_stage_s(tiny_flux, prompts, tmp_path: Path) -> None:
    torch.manual_seed(5)
    encoder = OmniIDEncoder(SIZES["tiny"])
    encoder.save_pretrained(tmp_path)
    model = {"size": "tiny", "clip": "encoder"}
    stage = build(config(tiny_flux, prompts, {"encoder": str(tmp_path)}, model=model))
    pairs = zip(stage.encoder.state_dict().values(), encoder.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(parameter.requires_grad for parameter in stage.encoder.parameters())


def test_an_encoder_of_another_size_is_refused_and_the_difference_named(
    tiny_flux, prompts, tmp_path: Path
) -> None:
    OmniIDEncoder(SIZES["tiny"].model_copy(update={"queries": 32})).save_pretrained(tmp_path)
    model = {"size": "tiny", "clip": "encoder"}
    with pytest.raises(TrainingError, match=r"flow\.encoder: .* queries 32 instead of 16\. Set model\.size"):
        build(config(tiny_flux, prompts, {"encoder": str(tmp_path)}, model=model))


def test_a_wrong_encoder_is_refused_before_flux_is_looked_for(tmp_path: Path) -> None:
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(tmp_path / "run" / "encoder")
    nowhere, prompts = tmp_path / "nowhere", tmp_path / "prompts"
    for size, folder, message in (
        ("small", tmp_path / "run" / "encoder", r"is of another size than model\.size small"),
        ("tiny", tmp_path / "run", r"holds no finished encoder.*Did you mean .*/run/encoder\?"),
    ):
        wrong = config(nowhere, prompts, {"encoder": str(folder)}, model={"size": size, "clip": "encoder"})
        for made in (build, meta_stage):
            with pytest.raises(TrainingError, match=message):
                made(wrong)


def test_an_encoder_that_is_not_there_is_named_with_its_key(tiny_flux, prompts, tmp_path: Path) -> None:
    model = {"size": "tiny", "clip": "encoder"}
    with pytest.raises(TrainingError, match=r"flow\.encoder: there is no folder .*nowhere"):
        build(config(tiny_flux, prompts, {"encoder": str(tmp_path / "nowhere")}, model=model))


@pytest.mark.parametrize(
    ("clip", "encoder"), [("encoder", None), ("random", "somewhere")], ids=["nowhere", "two places"]
)
def test_clip_comes_from_one_place(clip: str, encoder: str | None) -> None:
    with pytest.raises(ValueError, match=r"model\.clip: expected to be encoder where flow\.encoder is set"):
        config(None, None, {"encoder": encoder}, model={"size": "tiny", "clip": clip})
