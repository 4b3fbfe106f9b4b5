"""The memory and work of a flow step, computed without a GPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from noise_flux import noise_model
from step_figures import configured as step_configured
from step_sizes import configured, kept_bytes
from train_step import parse

from training.model import meta_model
from training.models.flux_adapter import add_adapter

IMAGES, IMAGE_TOKENS, TEXT_TOKENS, WIDTH = 3, 1024, 10, 32
OPTIONS = argparse.Namespace(targets=IMAGES, text_tokens=TEXT_TOKENS)


@pytest.fixture
def transformer() -> Any:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        found = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=20,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ).requires_grad_(False)
        add_adapter(found, zero_initialised=True)
    return found


def test_with_checkpointing_only_the_inputs_of_blocks_are_kept(transformer: Any) -> None:
    tokens_and_time = 2 * IMAGES * (IMAGE_TOKENS + TEXT_TOKENS) * WIDTH + IMAGES * WIDTH
    assert kept_bytes(transformer, OPTIONS, twice=True) == 2 * tokens_and_time


def test_without_checkpointing_attention_matrices_are_not_kept(transformer: Any) -> None:
    kept = kept_bytes(transformer, OPTIONS, twice=False)
    least = kept_bytes(transformer, OPTIONS, twice=True)
    assert 4 * least < kept < 2 * IMAGES * IMAGE_TOKENS**2 * 4


def test_the_adapter_has_the_478_million_parameters_of_its_19_blocks() -> None:
    model = meta_model(configured(text_tokens=64, targets=8))
    adapter = sum(weight.numel() for name, weight in model.named_parameters() if "_ip." in name)
    assert adapter == 19 * 2 * (4096 + 1) * 3072
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    assert sum(weight.numel() for weight in frozen) == 11_901_408_320


@pytest.mark.parametrize("stage", ["flow", "control"])
def test_a_model_of_noise_trains_what_the_workflow_trains(stage: str) -> None:
    options = parse(["--stage", stage, "--size", "paper", "--accumulation", "1"])
    config = step_configured(options, world_size=1, per_process=1)
    expected, found = (
        {name: (weight.shape, weight.requires_grad) for name, weight in model.named_parameters()}
        for model in (meta_model(config), noise_model(config, torch.device("meta")))
    )
    assert found == expected
    # The representation is frozen beside a ControlNet only, and the ControlNet has four of FLUX's double blocks.
    trained = {name for name, (_, trains) in found.items() if trains}
    assert any(name.startswith("representation.") for name in trained) == (stage == "flow")
    blocks = {
        name.split("transformer_blocks.")[1].partition(".")[0]
        for name in trained
        if ".controlnet.transformer_blocks." in name
    }
    assert len(blocks) == (4 if stage == "control" else 0)
