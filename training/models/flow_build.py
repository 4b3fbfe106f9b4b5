"""From a configuration to decoder 2 with its initial weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from training.config import Config, Flow, Scratch
from training.errors import TrainingError
from training.models.clip_weights import load_clip
from training.models.digest import weights_digest
from training.models.encoder import OmniIDEncoder
from training.models.flow import FlowStage, Flux
from training.models.flux_folder import in_words, open_flux, read_vae_config
from training.models.flux_latents import Codec, PixelCodec, VaeCodec
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt, empty_prompt, encoded_prompt
from training.models.kept_latents import ON_THE_FLY, KeptLatents, latents_folder
from training.models.pretrained import CONFIG, HUB_NAME, read_size
from training.models.sizes import SIZES, ModelSize

# diffusers imports bitsandbytes where it is installed, which then complains of kernels that nobody asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

SCRATCH_TEXT_WIDTH = 256
SCRATCH_POOLED_WIDTH = 64
"""Of a transformer trained from nothing, which has no text to read."""


def build_flow_stage(config: Config, dataset_sha256: str | None = None) -> FlowStage:
    """The stage that a configuration describes, alike on every process.

    What no file holds follows from `config.seed`, and the state of torch's generator stays as it was.

    Args:
        config: of a run of this stage.
        dataset_sha256: of the data set's manifest, which latents that are kept belong to; none are without it.

    Raises:
        ConfigError: settings do not fit one another or the files.
        TrainingError: FLUX, the encoder or CLIP's weights are not to be had, or not what they should be.
    """
    flow = _flow(config)
    kept = latents_folder(flow.latents, config.data.root)
    encoder = _trained_encoder(config) if flow.encoder else None
    clip = None if encoder else load_clip(config.model)
    stage = flow_stage(SIZES[config.model.size], flow, precision=config.run.precision, seed=config.seed)
    if encoder is not None:
        stage.encoder.load_state_dict(encoder.state_dict(), strict=True)
    elif clip is not None:
        stage.encoder.clip.visual.load_state_dict(clip, strict=True)
    if dataset_sha256 is not None and kept is not None:
        stage.kept = KeptLatents(kept, dataset_sha256, stage.codec, flow.side)
    return stage


def flow_stage(size: ModelSize, flow: Flow, precision: str, seed: int) -> FlowStage:
    """A stage whose FLUX is the configuration's, and whose other weights are initial ones.

    Raises:
        TrainingError: FLUX is not to be had, or not what it should be.
    """
    if flow.scratch:
        codec = _scratch_codec(flow.scratch, flow.side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flux = _scratch_flux(flow.scratch, codec)
    else:
        folder = open_flux(flow)
        # Half the memory and twice the speed, where the configuration asks for it; FLUX is published in bfloat16.
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        # The prompt first: when it is not in the cache, T5 takes much memory for a moment.
        prompt = encoded_prompt(folder, flow)
        transformer = folder.load("transformer", _kind(), dtype)
        codec = VaeCodec.load(folder.path / "vae", dtype)
        digest = weights_digest(transformer, codec.network)
        flux = Flux(transformer, codec, prompt, Schedule(folder.path), digest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlowStage(size, flow, flux)


def meta_flow_stage(config: Config) -> FlowStage:
    """The stage of a configuration on the meta device: shapes without weights.

    Raises:
        TrainingError: the folder of FLUX, in which its sizes stand, is not to be had, or the encoder is not.
    """
    from diffusers import AutoencoderKL

    flow = _flow(config)
    if flow.encoder:
        _check_encoder(config)  # at once, and not after FLUX has been fetched
    with torch.device("meta"):
        if flow.scratch:
            flux = _scratch_flux(flow.scratch, _scratch_codec(flow.scratch, flow.side, weights=False))
        else:
            configs = open_flux(flow, weights=False).configs
            transformer = _kind().from_config(configs["transformer"]).requires_grad_(False)
            vae = AutoencoderKL.from_config(configs["vae"]).requires_grad_(False)
            codec = VaeCodec(vae, "shapes")
            widths = transformer.config
            prompt = Prompt(
                torch.zeros(1, flow.text_tokens, widths.joint_attention_dim),
                torch.zeros(1, widths.pooled_projection_dim),
            )
            flux = Flux(transformer, codec, prompt, Schedule())
        stage = FlowStage(SIZES[config.model.size], flow, flux)
    if flow.latents != ON_THE_FLY:
        # Encoded in the first epoch only: steps are not credited with work that most of them do not do.
        stage.kept = KeptLatents(Path(), "shapes", stage.codec, flow.side)
    return stage


def scratch_transformer(scratch: Scratch, in_channels: int) -> Any:
    """A transformer that is trained from nothing: as diffusion transformers begin, it draws nothing yet.

    Args:
        scratch: its size.
        in_channels: numbers of a token of an image.
    """
    # Three axes of positions share a head's channels, pairs of them; the first axis says nothing in FLUX.1.
    spatial = scratch.head_width * 7 // 16 // 2 * 2
    transformer = _kind()(
        in_channels=in_channels,
        num_layers=scratch.layers,
        num_single_layers=scratch.single_layers,
        attention_head_dim=scratch.head_width,
        num_attention_heads=scratch.heads,
        joint_attention_dim=SCRATCH_TEXT_WIDTH,
        pooled_projection_dim=SCRATCH_POOLED_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(scratch.head_width - 2 * spatial, spatial, spatial),
    )
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            # No block adds anything, and the last layer says nothing (Peebles and Xie, 2023).
            silent = ".norm" in name or name.startswith("norm_out") or name == "proj_out"
            torch.nn.init.xavier_uniform_(module.weight, gain=0.0 if silent else 1.0)
            torch.nn.init.zeros_(module.bias)
    return transformer


def _scratch_flux(scratch: Scratch, codec: Codec) -> Flux:
    prompt = empty_prompt(SCRATCH_TEXT_WIDTH, SCRATCH_POOLED_WIDTH)
    transformer = scratch_transformer(scratch, 4 * codec.channels)
    return Flux(transformer, codec, prompt, Schedule(), digest=codec.name if scratch.vae else "")


def _scratch_codec(scratch: Scratch, side: int, *, weights: bool = True) -> Codec:
    """What the transformer draws images of `side` pixels in."""
    if scratch.patch is not None:
        return PixelCodec(scratch.patch)
    from diffusers import AutoencoderKL

    folder = Path(str(scratch.vae))
    config = read_vae_config(folder)
    if weights:
        codec = VaeCodec.load(folder, torch.float32)
    else:
        with in_words(folder):
            codec = VaeCodec(AutoencoderKL.from_config(config).requires_grad_(False), "shapes")
    if side % (2 * codec.factor):
        raise TrainingError(
            f"flow.side: {side} pixels are no whole number of tokens in the latents of {folder}; give a multiple "
            f"of {2 * codec.factor}"
        )
    return codec


def _kind() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel


def _check_encoder(config: Config) -> None:
    """What can be said of the encoder without fetching it or reading its weights."""
    flow = _flow(config)
    name, revision = str(flow.encoder), flow.encoder_revision
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise TrainingError(
                f"flow.encoder_revision: {name} is a folder, which has no revisions: set it to null"
            )
        with _of_the_encoder(name):
            size = read_size(folder)
        _check_size(size, config)
    elif not HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"flow.encoder: there is no folder {name}. Give what a run of the first stage left in <output>/encoder"
        )
    elif revision is None:
        raise TrainingError(
            f"flow.encoder: there is no folder {name}. To fetch it from the hub, set flow.encoder_revision to the "
            "commit of the repository that is meant (40 hexadecimal digits)"
        )


def _trained_encoder(config: Config) -> OmniIDEncoder:
    _check_encoder(config)
    flow = _flow(config)
    with _of_the_encoder(str(flow.encoder)):
        encoder = OmniIDEncoder.from_pretrained(str(flow.encoder), flow.encoder_revision)
    _check_size(encoder.size, config)
    return encoder


@contextmanager
def _of_the_encoder(name: str) -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        within = Path(name) / "encoder"
        hint = f". Did you mean {within}?" if (within / CONFIG).is_file() else ""
        raise TrainingError(f"flow.encoder: {error}{hint}") from error


def _check_size(size: ModelSize, config: Config) -> None:
    expected = SIZES[config.model.size]
    differing = [
        f"{key} {getattr(size, key)} instead of {value}"
        for key, value in expected.model_dump().items()
        if getattr(size, key) != value
    ]
    if differing:
        raise TrainingError(
            f"flow.encoder: {_flow(config).encoder} is of another size than model.size {config.model.size}: "
            f"{', '.join(differing)}. Set model.size to that of the encoder, or give another encoder"
        )


def _flow(config: Config) -> Flow:
    if config.flow is None:
        raise ValueError("this configuration is not of the flow stage")
    return config.flow
