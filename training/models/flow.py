"""Decoder 2, flow matching: FLUX draws a person, told who by an identity adapter; the encoder learns with it.

With x the latents of a target, ε noise and t in [0, 1], the transformer sees x_t = (1 - t) x + t ε and is to say
in which direction the noise lies, ε - x. The loss of a target is the mean square of the
difference over all entries of its latents, face or not: hair and background are part of what is drawn. x_t and the
loss are computed in float32; FLUX itself rounds t as it rounds everything when it runs in bfloat16.

t and ε follow from the sample's seed and the target's number (`hashed`), so they are the same on any number of
processes, and a run that goes on from a checkpoint draws what an undisturbed one would have drawn. The encoder
sees the inputs of a person once; the targets of all people are images of one batch.

Letters in names give the shape:
    B  people          M  inputs, at most       N  targets of a person    I  images, B x N
    K  stored images   S  side in pixels        Q  tokens of an image     F  numbers of a token
    L  identity tokens D  channels of one       T  channels of FLUX's text tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from training.config import Flow
from training.data.batch import Batch
from training.models.encoder import OmniIDEncoder
from training.models.flux_adapter import IdentityProjection, add_adapter, attend, set_scale
from training.models.flux_latents import Codec, pack, places, unpack, without_autocast
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt
from training.models.hashed import mixed, normals, seeded, uniforms
from training.models.kept_latents import KeptLatents
from training.models.pixels import pixels
from training.models.sizes import ModelSize

_TIME = 0x666C6F772074696D
_NOISE = 0x666C6F77206E6F69
_SAMPLE = 0x666C6F772073616D
_DROP = 0x666C6F772064726F
"""Set these draws apart from all others that come from the same seed."""


@dataclass(frozen=True)
class Step:
    """The targets of a batch and how well their velocities were told."""

    loss_BN: torch.Tensor
    """Mean square over the latents; 0 for damaged samples."""
    time_BN: torch.Tensor
    """t of each target."""


@dataclass(frozen=True)
class Flux:
    """What the adapter is put into, and what belongs to it."""

    transformer: Any
    """A `FluxTransformer2DModel`."""
    codec: Codec
    """Between images and latents."""
    prompt: Prompt
    """The one prompt."""
    schedule: Schedule
    """Of the steps of a sample."""
    digest: str = ""
    """Changes with the weights that are not trained: of transformer and codec, or of the codec alone."""


@dataclass(frozen=True)
class Sampling:
    """How an image is drawn."""

    times: tuple[float, ...]
    """t before each step and behind the last, from 1 down to 0."""
    guidance: float
    """What FLUX.1-dev is told."""
    scale: float = 1.0
    """How much of the adapter is added; 0 is FLUX alone."""
    identity_guidance: float = 1.0
    """How far to go from nobody's velocity to the person's."""


class FlowStage(nn.Module):
    """Encoder, projection and adapter in training, around a frozen FLUX.

    Args:
        size: of the encoder.
        flow: the configuration.
        flux: to whose transformer an adapter is added. Where its parameters need no gradient it is frozen:
            autocast, optimiser and checkpoints leave it alone.
    """

    METHODS = ("identify", "draw", "sample")
    """Methods besides `forward` that run the networks; whoever wraps it (FSDP) must know them."""

    prompt_1TD: torch.Tensor
    pooled_1D: torch.Tensor

    def __init__(self, size: ModelSize, flow: Flow, flux: Flux) -> None:
        super().__init__()
        self.size = size
        self.flow = flow
        self.codec = flux.codec
        self.schedule = flux.schedule
        self.frozen_digest = flux.digest
        self.kept: KeptLatents | None = None
        """Where latents come from, unless they are computed in each step."""
        self.encoder = OmniIDEncoder(size)
        self.projection = IdentityProjection(size.width, flux.transformer.config.joint_attention_dim)
        self.frozen = not any(parameter.requires_grad for parameter in flux.transformer.parameters())
        add_adapter(flux.transformer, silent=self.frozen)
        self.transformer = flux.transformer
        self.register_buffer("prompt_1TD", flux.prompt.tokens_1TD, persistent=False)
        self.register_buffer("pooled_1D", flux.prompt.pooled_1D, persistent=False)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The sum of the losses of all targets of undamaged samples, () float32."""
        return self.draw(batch, self._with_dropout(batch, self.identify(batch))).loss_BN.sum()

    def parts(self, batch: Batch) -> int:
        """How many targets the loss is a sum over."""
        return int(batch.valid_B.sum()) * int(batch.targets_BN.shape[1])

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks of both networks."""
        yield from self.encoder.blocks()
        yield from self.transformer.transformer_blocks
        yield from self.transformer.single_transformer_blocks

    def identify(self, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        """Identity tokens (B, L, D) from the inputs of a batch, or from the first `most_inputs` of them."""
        inputs_BM = batch.inputs_BM[:, :most_inputs]
        images_BMSSC = _pick(batch.images_BKSSC, inputs_BM)
        return self.encoder(pixels(images_BMSSC, self.size.side), batch.input_valid_BM[:, :most_inputs])

    def draw(self, batch: Batch, tokens_BLD: torch.Tensor) -> Step:
        """Tell the velocities of the targets of a batch from identity tokens, its own or other ones."""
        people, targets = batch.targets_BN.shape
        seeds_BN = mixed(batch.seeds_B[:, None] + batch.targets_BN)
        time_BN = draw_times(seeds_BN, self.flow.timesteps)
        clean_IQF = pack(self._latents(batch)).float()
        noise_IQF = normals(seeded(seeds_BN, _NOISE), clean_IQF[0].numel()).view(clean_IQF.shape)
        mixed_IQF = torch.lerp(clean_IQF, noise_IQF, time_BN.view(-1, 1, 1))
        guidance_I = time_BN.new_full((people * targets,), self.flow.guidance)
        told_IQF = self._velocity(mixed_IQF, time_BN.flatten(), tokens_BLD, guidance_I)
        wrong_IQF = (told_IQF.float() - (noise_IQF - clean_IQF)).square()
        loss_BN = wrong_IQF.mean(dim=(1, 2)).view(people, targets) * batch.valid_B[:, None]
        return Step(loss_BN, time_BN)

    @torch.no_grad()
    def sample(
        self, tokens_BLD: torch.Tensor, seeds_B: torch.Tensor, side: int, way: Sampling
    ) -> torch.Tensor:
        """Draw an image of each person, from noise that follows from a seed.

        Args:
            tokens_BLD: identity tokens.
            seeds_B: int64, one for each person.
            side: of the images, in pixels.
            way: how to get there.

        Returns:
            (B, 3, side, side) float32 in [0, 1].
        """
        tokens_per_side = side // (2 * self.codec.factor)
        shape = (len(tokens_BLD), tokens_per_side**2, 4 * self.codec.channels)
        noise_BQF = normals(seeded(seeds_B, _SAMPLE), shape[1] * shape[2]).view(shape)
        return self.codec.decode(unpack(self.denoise(noise_BQF, tokens_BLD, way)))

    @torch.no_grad()
    def denoise(self, image_BQF: torch.Tensor, tokens_BLD: torch.Tensor, way: Sampling) -> torch.Tensor:
        """Follow the velocities from the first of the times to the last, in Euler's steps, in float32.

        The images of a person follow one another; there may be several of each.
        """
        guidance_B = image_BQF.new_full((len(image_BQF),), way.guidance)
        set_scale(self.transformer, way.scale)
        try:
            for time, following in pairwise(way.times):
                time_B = torch.full_like(guidance_B, time)
                told_BQF = self._velocity(image_BQF, time_B, tokens_BLD, guidance_B).float()
                if way.identity_guidance != 1:
                    nobody_BLD = torch.zeros_like(tokens_BLD)
                    nobody_BQF = self._velocity(image_BQF, time_B, nobody_BLD, guidance_B).float()
                    told_BQF = torch.lerp(nobody_BQF, told_BQF, way.identity_guidance)
                image_BQF = image_BQF + (following - time) * told_BQF
        finally:
            set_scale(self.transformer, 1.0)
        return image_BQF

    def way(
        self, side: int, steps: int, guidance: float, scale: float = 1.0, identity_guidance: float = 1.0
    ) -> Sampling:
        """How FLUX draws an image of `side` pixels in so many steps."""
        tokens = (side // (2 * self.codec.factor)) ** 2
        return Sampling(self.schedule.times(steps, tokens), guidance, scale, identity_guidance)

    def _with_dropout(self, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """The tokens of most people, and zeros for the others."""
        if not self.flow.identity_dropout:
            return tokens_BLD
        told_B = uniforms(seeded(batch.seeds_B, _DROP)) >= self.flow.identity_dropout
        return tokens_BLD * told_B[:, None, None]

    def _velocity(
        self,
        image_IQF: torch.Tensor,
        time_I: torch.Tensor,
        tokens_BLD: torch.Tensor,
        guidance_I: torch.Tensor,
    ) -> torch.Tensor:
        """What the transformer says, (I, Q, F); the images of a person follow one another."""
        people, images = len(tokens_BLD), len(image_IQF)
        side = round(image_IQF.shape[1] ** 0.5)
        # FSDP's mixed precision changes the weights' type, not that of what comes in.
        dtype = self.transformer.x_embedder.weight.dtype
        identity_BLT = self.projection(tokens_BLD).to(dtype)
        with without_autocast(image_IQF.device) if self.frozen else nullcontext():
            told: torch.Tensor = self.transformer(
                hidden_states=image_IQF.to(dtype),
                encoder_hidden_states=self.prompt_1TD.to(dtype).expand(images, -1, -1),
                pooled_projections=self.pooled_1D.to(dtype).expand(images, -1),
                timestep=time_I,
                img_ids=places(side, image_IQF.device),
                txt_ids=image_IQF.new_zeros(self.prompt_1TD.shape[1], 3),
                guidance=guidance_I if self.transformer.config.guidance_embeds else None,
                joint_attention_kwargs=attend(identity_BLT, images // people),
                return_dict=False,
            )[0]
        return told

    def _latents(self, batch: Batch) -> torch.Tensor:
        """Latents of the targets, (I, C, H, H)."""
        if self.kept is not None:
            return self.kept.of(batch)
        images_BNSSC = _pick(batch.images_BKSSC, batch.targets_BN)
        return self.codec.encode(pixels(images_BNSSC, self.flow.side).flatten(0, 1))


def draw_times(seeds: torch.Tensor, how: str) -> torch.Tensor:
    """A time for each seed, float32 in [0, 1]."""
    if how == "uniform":
        return uniforms(seeded(seeds, _TIME))
    # The logistic function of a standard normal number (Esser et al., 2024, location 0 and scale 1).
    return torch.sigmoid(normals(seeded(seeds, _TIME), 1)[..., 0])


def _pick(images_BKxx: torch.Tensor, numbers_BX: torch.Tensor) -> torch.Tensor:
    rows_B1 = torch.arange(len(numbers_BX), device=numbers_BX.device)[:, None]
    return images_BKxx[rows_B1, numbers_BX]
