"""The networks of the control decoder: those of the flow decoder, an adapter to start from, and the ControlNet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from settings.section import ConfigError
from shards.atomic import write_bytes
from training.decoders.base import BuildContext
from training.decoders.control import ControlDecoder
from training.decoders.control_config import ControlConfig
from training.decoders.flow import Flux
from training.decoders.flow_networks import build_flux, kept_latents, rope_axes
from training.decoders.own_transformer import read_transformer
from training.errors import TrainingError
from training.folders import make_folder
from training.models.clip_weights import key_differences
from training.models.digest import weights_digest
from training.models.flux_folder import WEIGHTS_FILE

if TYPE_CHECKING:
    from training.trained import Trained

_ADAPTER = ("projection.", "transformer.")
_WITHOUT_GRADIENT = ("attn.to_add_out.", "attn.add_q_proj.", "attn.norm_added_q.", "ff_context.")
"""Of the last double block, where no single block follows: they compute text tokens that are not used."""


def build_control_decoder(config: ControlConfig, context: BuildContext) -> ControlDecoder:
    """The decoder that a configuration describes.

    Raises:
        ConfigError: keys do not fit one another.
        TrainingError: FLUX, the adapter or the transformer is missing, or not what it should be.
    """
    with _own_keys():
        flux = build_flux(config, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        controlnet = new_controlnet(config, flux.transformer)
    dataset = "shapes" if context.shapes_only else context.dataset_sha256
    with _own_keys():
        kept = None if dataset is None else kept_latents(config, context.data_root, dataset, flux.codec)
    decoder = ControlDecoder(context.width, config, flux, controlnet, kept)
    if config.adapter and not context.shapes_only:
        trained = _flow_run(config.adapter)
        _check_transformer_of(trained, config, flux)
        _load_adapter(decoder, trained.of("decoders.flow."), config.adapter)
    return decoder


@contextmanager
def _own_keys() -> Iterator[None]:
    """Name the keys of this decoder in the errors of what it shares with the flow decoder."""
    try:
        yield
    except (ConfigError, TrainingError) as error:
        raise type(error)(str(error).replace("decoders.flow.", "decoders.control.")) from error


def new_controlnet(config: ControlConfig, transformer: Any) -> Any:
    """A `FluxControlNetModel` in float32 that starts as a copy of the transformer's first blocks.

    Args:
        config: how many blocks it has.
        transformer: without an adapter.
    """
    from diffusers import FluxControlNetModel

    with _deprecated_by_itself():
        controlnet = FluxControlNetModel.from_transformer(
            transformer,
            num_layers=config.layers,
            num_single_layers=config.single_layers,
            attention_head_dim=transformer.config.attention_head_dim,
            num_attention_heads=transformer.config.num_attention_heads,
        ).requires_grad_(True)
    if not config.single_layers:
        last = controlnet.transformer_blocks[-1]
        for name, parameter in last.named_parameters():
            if name.startswith(_WITHOUT_GRADIENT):
                parameter.requires_grad_(False)
    return controlnet


@contextmanager
def _deprecated_by_itself() -> Iterator[None]:
    """Make a `FluxControlNetModel` without its warning: diffusers' own module calls what diffusers deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`FluxPosEmbed` is deprecated", category=FutureWarning)
        yield


def write_controlnet(weights: Mapping[str, torch.Tensor], config: ControlConfig, folder: Path) -> None:
    """Write a ControlNet as diffusers' `FluxControlNetModel.from_pretrained` reads it.

    Args:
        weights: those that were trained, by their names in the model. What computes text tokens that are not used
            is written as zeros.
        config: of the decoder.
        folder: made when missing.

    Raises:
        OutOfSpace: the disk or the quota is full.
    """
    from diffusers import FluxControlNetModel
    from safetensors.torch import save

    width, in_channels = weights["x_embedder.weight"].shape
    head_width = len(weights["transformer_blocks.0.attn.norm_q.weight"])
    with torch.device("meta"), _deprecated_by_itself():
        controlnet: Any = FluxControlNetModel(
            in_channels=in_channels,
            num_layers=config.layers,
            num_single_layers=config.single_layers,
            attention_head_dim=head_width,
            num_attention_heads=width // head_width,
            joint_attention_dim=weights["context_embedder.weight"].shape[1],
            pooled_projection_dim=weights["time_text_embed.text_embedder.linear_1.weight"].shape[1],
            guidance_embeds=any("guidance_embedder" in name for name in weights),
            axes_dims_rope=list(rope_axes(head_width)),
        )
    whole = {
        name: weights[name] if name in weights else torch.zeros(shape.shape)
        for name, shape in controlnet.state_dict().items()
    }
    make_folder(folder)
    controlnet.save_config(folder)
    write_bytes(folder / WEIGHTS_FILE, save(whole, {"format": "pt"}))


def _flow_run(source: Path) -> Trained:
    """A run of the flow decoder, or its export."""
    from training.export import read_trained

    trained = read_trained(source)
    if trained.facts.flow is None:
        raise TrainingError(
            f"decoders.control: {source} has no flow decoder. Pass the output of a run with decoders.flow, or its "
            "export"
        )
    return trained


def _load_adapter(decoder: ControlDecoder, trained: Mapping[str, torch.Tensor], source: Path) -> None:
    """Start projection and adapter from those of a flow run."""
    expected = {
        name: parameter
        for name, parameter in decoder.named_parameters()
        if parameter.requires_grad and name.startswith(_ADAPTER)
    }
    given = {name: value for name, value in trained.items() if name in expected}
    if problems := key_differences(expected, given):
        raise TrainingError(
            f"decoders.control.adapter: {source} was trained for another FLUX or another representation: "
            f"{'; '.join(problems)}"
        )
    decoder.load_state_dict(given, strict=False)


def _check_transformer_of(trained: Trained, config: ControlConfig, flux: Flux) -> None:
    """Check that the adapter was trained in the small transformer that is used."""
    flow = trained.facts.flow
    if config.scratch is None or flow is None or config.transformer_source == config.adapter:
        return
    if flow.transformer_source is None:
        own = read_transformer(config.adapter, "decoders.control.adapter") if config.adapter else None
        expected = weights_digest(dict(own.weights)) if own else ""
    else:
        expected = trained.frozen_digests.get(flow.name, trained.facts.flow_digest)
    if not flux.digest.startswith(expected):
        raise TrainingError(
            f"decoders.control.adapter: the adapter of {config.adapter} was trained in another transformer than "
            f"that of {config.transformer_source}. Set scratch.transformer to null, or to that of the adapter"
        )
