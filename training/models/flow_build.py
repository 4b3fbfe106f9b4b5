"""From a configuration to decoder 2 with its initial weights."""

from __future__ import annotations

from typing import Any

import torch

from training.config import Config, Flow, Scratch
from training.errors import TrainingError
from training.models.clip_weights import load_clip
from training.models.encoder import OmniIDEncoder
from training.models.flow import FlowStage
from training.models.flux_folder import open_flux
from training.models.flux_latents import Codec, PixelCodec, VaeCodec
from training.models.flux_text import Prompt, empty_prompt, encoded_prompt
from training.models.sizes import SIZES

SCRATCH_TEXT_WIDTH = 256
SCRATCH_POOLED_WIDTH = 64
"""Of a transformer trained from nothing, which has no text to read."""


def build_flow_stage(config: Config) -> FlowStage:
    """The stage that a configuration describes, alike on every process.

    What no file holds follows from `config.seed`, and the state of torch's generator stays as it was.

    Raises:
        ConfigError: settings do not fit one another or the files.
        TrainingError: FLUX, the encoder or CLIP's weights are not to be had, or not what they should be.
    """
    flow = _flow(config)
    base = _Base(flow, config)
    encoder = _trained_encoder(config) if flow.encoder else None
    clip = None if encoder else load_clip(config.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        stage = FlowStage(SIZES[config.model.size], flow, base.transformer, base.codec, base.prompt)
    if encoder is not None:
        stage.encoder.load_state_dict(encoder.state_dict(), strict=True)
    elif clip is not None:
        stage.encoder.clip.visual.load_state_dict(clip, strict=True)
    return stage


class _Base:
    """What the stage is built around."""

    transformer: Any
    codec: Codec
    prompt: Prompt

    def __init__(self, flow: Flow, config: Config) -> None:
        from diffusers import FluxTransformer2DModel

        if flow.scratch:
            self.codec = PixelCodec(flow.scratch.patch)
            self.prompt = empty_prompt(SCRATCH_TEXT_WIDTH, SCRATCH_POOLED_WIDTH)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.transformer = FluxTransformer2DModel(**_scratch_sizes(flow.scratch, self.codec.channels))
                _initialise(self.transformer)
            return
        folder = open_flux(flow)
        # Half the memory and twice the speed, where the configuration asks for it; FLUX is published in bfloat16.
        dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        self.prompt = encoded_prompt(folder, flow)
        self.codec = VaeCodec(folder, dtype)
        self.transformer = folder.load("transformer", FluxTransformer2DModel, dtype)


def _scratch_sizes(scratch: Scratch, channels: int) -> dict[str, Any]:
    # Three axes of positions share a head's channels, pairs of them; the first axis says nothing in FLUX.1.
    spatial = scratch.head_width * 7 // 16 // 2 * 2
    return {
        "in_channels": 4 * channels,
        "num_layers": scratch.layers,
        "num_single_layers": scratch.single_layers,
        "attention_head_dim": scratch.head_width,
        "num_attention_heads": scratch.heads,
        "joint_attention_dim": SCRATCH_TEXT_WIDTH,
        "pooled_projection_dim": SCRATCH_POOLED_WIDTH,
        "guidance_embeds": False,
        "axes_dims_rope": (scratch.head_width - 2 * spatial, spatial, spatial),
    }


def _initialise(transformer: Any) -> None:
    """As diffusion transformers begin: no block adds anything, nothing is drawn (Peebles and Xie, 2023)."""
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            modulates = ".norm" in name or name.startswith("norm_out")
            torch.nn.init.xavier_uniform_(module.weight, gain=0.0 if modulates or name == "proj_out" else 1.0)
            torch.nn.init.zeros_(module.bias)


def _trained_encoder(config: Config) -> OmniIDEncoder:
    name = str(_flow(config).encoder)
    encoder = OmniIDEncoder.from_pretrained(name)
    expected = SIZES[config.model.size]
    if encoder.size != expected:
        differing = [
            f"{key} {getattr(encoder.size, key)} instead of {value}"
            for key, value in expected.model_dump().items()
            if getattr(encoder.size, key) != value
        ]
        raise TrainingError(
            f"flow.encoder: {name} is of another size than model.size {config.model.size}: "
            f"{', '.join(differing)}. Set model.size to that of the encoder, or give another encoder"
        )
    return encoder


def _flow(config: Config) -> Flow:
    if config.flow is None:
        raise ValueError("this configuration is not of the flow stage")
    return config.flow
