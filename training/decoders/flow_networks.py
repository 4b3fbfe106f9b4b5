"""The networks around the adapter: FLUX, or a small transformer, trained too or frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.data.latents import latents_directory
from training.data.needs import KeptLatents
from training.decoders.base import BuildContext
from training.decoders.flow import FlowDecoder, Flux
from training.decoders.flow_config import FlowConfig, Scratch
from training.decoders.own_transformer import load_frozen
from training.errors import TrainingError
from training.models.digest import weights_digest
from training.models.flux_folder import COMPONENTS, FluxFolder, load_errors, open_flux, read_vae_config
from training.models.flux_latents import Codec, PixelCodec, VaeCodec
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt, empty_prompt, encoded_prompt

SCRATCH_TEXT_WIDTH = 256
SCRATCH_POOLED_WIDTH = 64
"""Of a transformer trained from nothing, which reads no text."""


def build_flow_decoder(config: FlowConfig, context: BuildContext) -> FlowDecoder:
    """The decoder that a configuration describes, around FLUX or a transformer of its own.

    Raises:
        ConfigError: keys do not fit one another.
        TrainingError: FLUX is missing, or not what it should be.
    """
    flux = build_flux(config, context)
    # FLOPs are counted on shapes: without the encoding, which no step does when latents are kept.
    dataset = "shapes" if context.shapes_only else context.dataset_sha256
    kept = None if dataset is None else kept_latents(config, context.data_root, dataset, flux.codec)
    return FlowDecoder(context.width, config, flux, kept)


def build_flux(config: FlowConfig, context: BuildContext) -> Flux:
    """FLUX or a transformer of its own, without an adapter.

    Raises:
        ConfigError: keys do not fit one another.
        TrainingError: FLUX is missing, or not what it should be.
    """
    return _shapes(config, context) if context.shapes_only else _networks(config, context)


def kept_latents(config: FlowConfig, root: str, dataset_sha256: str, codec: Codec) -> KeptLatents | None:
    """The kept latents that a configuration names; None where latents are computed in each step.

    Args:
        config: of the decoder.
        root: `data.root`.
        dataset_sha256: of the dataset's metadata.
        codec: with its weights.

    Raises:
        ConfigError: `decoders.flow.latents` is no directory and no URL that can be used.
    """
    directory = latents_directory(config.latents, root)
    if directory is None:
        return None
    side = config.side // codec.factor
    shape = (codec.channels, side, side)
    return KeptLatents(directory, dataset_sha256, codec.name, config.side, shape, codec.dtype)


def load_codec(config: FlowConfig, precision: str) -> Codec:
    """The codec of a run, without the other networks.

    Args:
        config: of the decoder.
        precision: `run.precision`.

    Raises:
        TrainingError: its weights are missing, or not what they should be.
    """
    if config.scratch:
        return scratch_codec(config.scratch, config.side)
    return VaeCodec.load(_open(config, weights=("vae",)).path / "vae", _frozen_dtype(precision))


def _open(config: FlowConfig, weights: Iterable[str] = tuple(COMPONENTS)) -> FluxFolder:
    """The directory of FLUX that a configuration without `scratch` names, with the weights of these components."""
    return open_flux(str(config.base), config.revision, weights=weights)


def _networks(config: FlowConfig, context: BuildContext) -> Flux:
    """What the adapter is put into, with its weights."""
    if config.scratch:
        codec = scratch_codec(config.scratch, config.side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            flux = _scratch_flux(config.scratch, codec)
        source = config.transformer_source
        if source is None:
            return flux
        load_frozen(flux.transformer, source, config.transformer_key, codec.name)
        digest = weights_digest(flux.transformer) + flux.digest
        return replace(_in_precision(flux, context.precision), digest=digest)
    folder = _open(config)
    dtype = _frozen_dtype(context.precision)
    # The prompt first: when it is not in the cache, T5 takes much memory for a moment.
    prompt = encoded_prompt(folder, config.prompt, config.text_tokens, config.prompt_cache)
    transformer = folder.load("transformer", _kind(), dtype)
    codec = VaeCodec.load(folder.path / "vae", dtype)
    digest = weights_digest(transformer, codec.network)
    return Flux(transformer, codec, prompt, Schedule(folder.path), digest)


def _shapes(config: FlowConfig, context: BuildContext) -> Flux:
    """The same without weights, on the meta device."""
    from diffusers import AutoencoderKL

    if config.scratch:
        flux = _scratch_flux(config.scratch, scratch_codec(config.scratch, config.side, weights=False))
        return _in_precision(flux, context.precision) if config.transformer_source else flux
    configs = _open(config, weights=()).configs
    transformer = _kind().from_config(configs["transformer"])
    codec = VaeCodec(AutoencoderKL.from_config(configs["vae"]).requires_grad_(False), "shapes")
    widths = transformer.config
    prompt = Prompt(
        torch.zeros(1, config.text_tokens, widths.joint_attention_dim),
        torch.zeros(1, widths.pooled_projection_dim),
    )
    return _in_precision(Flux(transformer, codec, prompt, Schedule()), context.precision)


def _in_precision(flux: Flux, precision: str) -> Flux:
    """The same, with its transformer frozen, in the precision of frozen networks."""
    # Not diffusers' own `to`, which warns of layers that FLUX does not have.
    torch.nn.Module.to(flux.transformer.requires_grad_(False), _frozen_dtype(precision))
    return flux


def scratch_transformer(scratch: Scratch, in_channels: int) -> Any:
    """A transformer that is trained from random weights, zero-initialised as diffusion transformers are.

    Args:
        scratch: its size.
        in_channels: numbers of a token of an image.
    """
    transformer = _kind()(
        in_channels=in_channels,
        num_layers=scratch.layers,
        num_single_layers=scratch.single_layers,
        attention_head_dim=scratch.head_width,
        num_attention_heads=scratch.heads,
        joint_attention_dim=SCRATCH_TEXT_WIDTH,
        pooled_projection_dim=SCRATCH_POOLED_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=rope_axes(scratch.head_width),
    )
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            # adaLN-Zero (Peebles and Xie, 2023).
            zero = ".norm" in name or name.startswith("norm_out") or name == "proj_out"
            torch.nn.init.xavier_uniform_(module.weight, gain=0.0 if zero else 1.0)
            torch.nn.init.zeros_(module.bias)
    return transformer


def rope_axes(head_width: int) -> tuple[int, int, int]:
    """Channels of a head for each axis of positions, pairs of them; the first axis is always 0 in FLUX.1.

    FLUX's own 16, 56 and 56 for heads of 128 channels.
    """
    spatial = head_width * 7 // 16 // 2 * 2
    return head_width - 2 * spatial, spatial, spatial


def scratch_prompt() -> Prompt:
    """What a transformer of its own gets in place of a prompt: one token of zeros."""
    return empty_prompt(SCRATCH_TEXT_WIDTH, SCRATCH_POOLED_WIDTH)


def _scratch_flux(scratch: Scratch, codec: Codec) -> Flux:
    prompt = scratch_prompt()
    transformer = scratch_transformer(scratch, 4 * codec.channels)
    return Flux(transformer, codec, prompt, Schedule(), digest=codec.name if scratch.vae else "")


def scratch_codec(scratch: Scratch, side: int, *, weights: bool = True) -> Codec:
    """The codec of images of `side` pixels."""
    if scratch.patch is not None:
        return PixelCodec(scratch.patch)
    from diffusers import AutoencoderKL

    folder = Path(str(scratch.vae))
    config = read_vae_config(folder)
    if weights:
        codec = VaeCodec.load(folder, torch.float32)
    else:
        with load_errors(folder):
            codec = VaeCodec(AutoencoderKL.from_config(config).requires_grad_(False), "shapes")
    if side % (2 * codec.factor):
        raise TrainingError(
            f"decoders.flow.side: {side} pixels are no whole number of tokens in the latents of {folder}; "
            f"give a multiple of {2 * codec.factor}"
        )
    return codec


def _frozen_dtype(precision: str) -> torch.dtype:
    """Half the memory and twice the speed, where the configuration asks for it; FLUX is published in bfloat16."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _kind() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel
