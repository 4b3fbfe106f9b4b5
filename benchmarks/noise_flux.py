"""FLUX.1-dev at its full size with random weights: what a step costs does not depend on what they are."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.config import Config
from training.models.flow import FlowStage, Flux
from training.models.flux_folder import open_flux
from training.models.flux_latents import VaeCodec
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt
from training.models.sizes import SIZES

# config.json of the parts of black-forest-labs/FLUX.1-dev, as far as they say how large it is.
_SIZES = {
    "transformer": {
        "_class_name": "FluxTransformer2DModel",
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": [16, 56, 56],
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 32,
        "sample_size": 1024,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 768},
    "text_encoder_2": {"architectures": ["T5EncoderModel"], "d_model": 4096},
}


def write_sizes(folder: Path) -> Path:
    """A folder of FLUX.1-dev that says how large everything is, and holds no weights."""
    for part, config in _SIZES.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    for part in ("tokenizer", "tokenizer_2"):
        (folder / part).mkdir(exist_ok=True)
    return folder


def noise_stage(config: Config, device: torch.device) -> FlowStage:
    """The flow stage of a configuration on a device, all of its weights random.

    Args:
        config: whose `flow.base` is what `write_sizes` wrote.
        device: where it is made; 12 billion numbers are drawn much sooner on a GPU.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    if config.flow is None:
        raise ValueError("this configuration is not of the flow stage")
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    configs = open_flux(config.flow).configs
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            transformer = FluxTransformer2DModel.from_config(configs["transformer"])
            vae = AutoencoderKL.from_config(configs["vae"])
    finally:
        torch.set_default_dtype(usual)
    with torch.device(device):
        prompt = Prompt(
            torch.randn(1, config.flow.text_tokens, configs["transformer"]["joint_attention_dim"]),
            torch.randn(1, configs["transformer"]["pooled_projection_dim"]),
        )
        frozen = [network.requires_grad_(False).eval() for network in (transformer, vae)]
        flux = Flux(frozen[0], VaeCodec(frozen[1], "noise"), prompt, Schedule())
        return FlowStage(SIZES[config.model.size], config.flow, flux)
