"""FLUX.1-dev at its full size with random weights: what a step costs does not depend on what they are."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.config import Config
from training.decoders.control import ControlDecoder
from training.decoders.control_networks import new_controlnet
from training.decoders.flow import FlowDecoder, Flux
from training.model import IdentityModel
from training.models.flux_folder import open_flux
from training.models.flux_latents import VaeCodec
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt
from training.representations.build import build_representation

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

_TINY = {
    "transformer": {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "pooled_projection_dim": 20,
        "axes_dims_rope": [4, 6, 6],
    },
    "vae": {
        "block_out_channels": [4, 4, 8, 8],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
    },
    "text_encoder": {"hidden_size": 20},
    "text_encoder_2": {"d_model": 24},
}
"""What is smaller in a FLUX that a CPU can train."""


def write_sizes(folder: Path, *, tiny: bool = False) -> Path:
    """Write the directory of a FLUX without weights: the configurations, which say how large its parts are.

    Args:
        folder: created where it is missing.
        tiny: the same parts with a few thousand parameters, instead of FLUX.1-dev's sizes.
    """
    for part, real in _SIZES.items():
        config = real | _TINY[part] if tiny else real
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 3.0}))
    for part in ("tokenizer", "tokenizer_2"):
        (folder / part).mkdir(exist_ok=True)
    return folder


def noise_model(config: Config, device: torch.device) -> IdentityModel:
    """The model of a configuration with a flow or a control decoder on a device, all of its weights random.

    Args:
        config: whose `decoders.flow.base` or `decoders.control.base` is what `write_sizes` wrote.
        device: where it is made; 12 billion random numbers take much less time on a GPU.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    control = config.decoders.control
    flow = control or config.decoders.flow
    if flow is None:
        raise ValueError("this configuration has neither decoders.flow nor decoders.control")
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    configs = open_flux(str(flow.base), None).configs
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
            torch.randn(1, flow.text_tokens, configs["transformer"]["joint_attention_dim"]),
            torch.randn(1, configs["transformer"]["pooled_projection_dim"]),
        )
        frozen = [network.requires_grad_(False).eval() for network in (transformer, vae)]
        flux = Flux(frozen[0], VaeCodec(frozen[1], "noise"), prompt, Schedule())
        representation = build_representation(config.representation, lambda: None, config.data.most_inputs)
        if control is None:
            return IdentityModel(representation, {"flow": FlowDecoder(representation.width, flow, flux)})
        controlnet = new_controlnet(control, transformer)
        decoder = ControlDecoder(representation.width, control, flux, controlnet)
        return IdentityModel(representation, {"control": decoder})
