"""The flow decoder: flow matching on FLUX, conditioned on identity tokens by an adapter.

With x the latents of a target, ε noise and t in [0, 1], the transformer sees x_t = (1 - t) x + t ε and predicts
the velocity ε - x. The loss of a target is the mean squared error over all entries of its latents, face or not:
hair and background are part of the image. x_t and the loss are computed in float32; FLUX itself rounds t as it
rounds everything when it runs in bfloat16.

t and ε follow from the sample's seed and the target's number (`hashed`), so they are the same on any number of
ranks, and a resumed run uses those of an undisturbed one. The representation encodes the inputs of an identity
once; the targets of all identities are images of one batch.

Source: Omni-ID, section 3.4.

Letters in names give the shape:
    B  identities      N  targets of one        I  images, B x N      K  stored images
    C  colours (3)     S  side in pixels        Q  tokens of an image F  numbers of a token
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

from training.data.batch import Batch, pick
from training.data.needs import KeptLatents, Needs
from training.decoders.base import Column
from training.decoders.flow_config import FlowConfig
from training.models.flux_adapter import IdentityProjection, add_adapter, attend, set_scale
from training.models.flux_latents import Codec, pack, positions, unpack
from training.models.flux_schedule import Schedule
from training.models.flux_text import Prompt
from training.models.hashed import mixed, normals, seeded, uniforms
from training.models.pixels import pixels
from training.models.precision import without_autocast

_TIME = 0x666C6F772074696D
_NOISE = 0x666C6F77206E6F69
_SAMPLE = 0x666C6F772073616D
_DROP = 0x666C6F772064726F
"""Set these random numbers apart from all others that come from the same seed."""
GRID_SAMPLES, GRID_TARGETS = 2, 2
"""Columns of the sample grid: samples from different noise, and other images of the same person."""


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
    """How an image is sampled."""

    times: tuple[float, ...]
    """t before each step and behind the last, from 1 down to 0."""
    guidance: float
    """FLUX.1-dev's guidance input."""
    scale: float = 1.0
    """How much of the adapter is added; 0 is FLUX alone."""
    identity_guidance: float = 1.0
    """Scale of classifier-free guidance by identity."""


class FlowDecoder(nn.Module):
    """Projection and adapter in training, around a frozen FLUX.

    Args:
        width: channels of an identity token.
        config: of the decoder.
        flux: to whose transformer an adapter is added. Where its parameters need no gradient it is frozen:
            autocast, optimiser and checkpoints leave it alone.
        kept: latents of the targets that the stream reads from files; None where a step computes them.
    """

    prompt_1TD: torch.Tensor
    pooled_1D: torch.Tensor

    def __init__(self, width: int, config: FlowConfig, flux: Flux, kept: KeptLatents | None = None) -> None:
        super().__init__()
        self.config = config
        self.codec = flux.codec
        self.schedule = flux.schedule
        self.frozen_digest = flux.digest
        self.needs = Needs(0, latents=kept) if kept else Needs(config.side, targets=True)
        self.projection = IdentityProjection(width, flux.transformer.config.joint_attention_dim)
        self.frozen = not any(parameter.requires_grad for parameter in flux.transformer.parameters())
        start = config.adapter_init or ("zeros" if self.frozen else "small")
        add_adapter(flux.transformer, zero_initialised=start == "zeros")
        self.transformer = flux.transformer
        self.register_buffer("prompt_1TD", flux.prompt.tokens_1TD, persistent=False)
        self.register_buffer("pooled_1D", flux.prompt.pooled_1D, persistent=False)

    def losses(self, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """See `Decoder.losses`; in training, `identity_dropout` of the identities are unconditional."""
        if self.training:
            tokens_BLD = self._with_dropout(batch, tokens_BLD)
        seeds_BN = mixed(batch.seeds_B[:, None] + batch.targets_BN)
        time_I = sample_times(seeds_BN, self.config.timesteps).flatten()
        clean_IQF = pack(self._latents(batch)).float()
        noise_IQF = normals(seeded(seeds_BN, _NOISE), clean_IQF[0].numel()).view(clean_IQF.shape)
        noisy_IQF = torch.lerp(clean_IQF, noise_IQF, time_I.view(-1, 1, 1))
        guidance_I = torch.full_like(time_I, self.config.guidance)
        pred_IQF = self._velocity(noisy_IQF, time_I, tokens_BLD, guidance_I, self.control(batch))
        error_IQF = (pred_IQF.float() - (noise_IQF - clean_IQF)).square()
        return error_IQF.mean(dim=(1, 2)).view(batch.targets_BN.shape) * batch.valid_B[:, None]

    def columns(self, batch: Batch, tokens_BLD: torch.Tensor) -> list[Column]:
        """Samples from the identity tokens, and targets: other images of the same person."""
        config, sampling = self.config, self.usual_sampling()
        samples = [
            self.sample(tokens_BLD, batch.seeds_B + number, config.side, sampling).cpu()
            for number in range(GRID_SAMPLES)
        ]
        shown = batch.targets_BN[:, :GRID_TARGETS]
        targets_BNCSS = pixels(pick(batch.images_BKSSC, shown), config.side)
        return [
            *(Column(f"sample {number}", images) for number, images in enumerate(samples, 1)),
            *(Column(f"target {number}", images) for number, images in enumerate(targets_BNCSS.unbind(1), 1)),
        ]

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks."""
        yield from self.transformer.transformer_blocks
        yield from self.transformer.single_transformer_blocks

    def control(self, batch: Batch) -> torch.Tensor | None:  # noqa: ARG002 - for decoders that have a condition
        """What the velocity of the targets depends on besides the identity, (I, Q, F); None here."""
        return None

    @torch.no_grad()
    def sample(
        self,
        tokens_BLD: torch.Tensor,
        seeds_B: torch.Tensor,
        side: int,
        sampling: Sampling,
        control_BQF: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Generate an image of each identity, from noise that follows from a seed.

        Args:
            tokens_BLD: identity tokens.
            seeds_B: int64, one for each identity.
            side: of the images, in pixels.
            sampling: steps and guidance.
            control_BQF: see `control`.

        Returns:
            (B, 3, side, side) float32 in [0, 1].
        """
        shape = (len(tokens_BLD), *self.noise_shape(side))
        noise_BQF = normals(seeded(seeds_B, _SAMPLE), shape[1] * shape[2]).view(shape)
        return self.codec.decode(unpack(self.denoise(noise_BQF, tokens_BLD, sampling, control_BQF)))

    def noise_shape(self, side: int) -> tuple[int, int]:
        """(Q, F) of the noise that an image of `side` pixels starts from."""
        return (side // (2 * self.codec.factor)) ** 2, 4 * self.codec.channels

    @torch.no_grad()
    def denoise(
        self,
        image_BQF: torch.Tensor,
        tokens_BLD: torch.Tensor,
        sampling: Sampling,
        control_BQF: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Integrate the velocity from the first of the times to the last, in Euler steps, in float32.

        The images of an identity follow one another; there may be several of each.
        """
        guidance_B = image_BQF.new_full((len(image_BQF),), sampling.guidance)
        set_scale(self.transformer, sampling.scale)
        try:
            for time, following in pairwise(sampling.times):
                time_B = torch.full_like(guidance_B, time)
                velocity_BQF = self._velocity(image_BQF, time_B, tokens_BLD, guidance_B, control_BQF).float()
                if sampling.identity_guidance != 1:
                    zeros_BLD = torch.zeros_like(tokens_BLD)
                    unconditional_BQF = self._velocity(
                        image_BQF, time_B, zeros_BLD, guidance_B, control_BQF
                    ).float()
                    velocity_BQF = torch.lerp(unconditional_BQF, velocity_BQF, sampling.identity_guidance)
                image_BQF = image_BQF + (following - time) * velocity_BQF
        finally:
            set_scale(self.transformer, 1.0)
        return image_BQF

    def sampling(
        self, side: int, steps: int, guidance: float, scale: float = 1.0, identity_guidance: float = 1.0
    ) -> Sampling:
        """How an image of `side` pixels is sampled in so many steps, with the schedule of FLUX."""
        tokens = (side // (2 * self.codec.factor)) ** 2
        return Sampling(self.schedule.times(steps, tokens), guidance, scale, identity_guidance)

    def usual_sampling(self) -> Sampling:
        """How an image of the configured side is sampled where nothing else is asked for."""
        config = self.config
        return self.sampling(
            config.side,
            config.sample_steps,
            config.sample_guidance,
            identity_guidance=config.sample_identity_guidance,
        )

    def _with_dropout(self, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """The tokens of most identities, and zeros for the others."""
        if not self.config.identity_dropout:
            return tokens_BLD
        kept_B = uniforms(seeded(batch.seeds_B, _DROP)) >= self.config.identity_dropout
        return tokens_BLD * kept_B[:, None, None]

    def _velocity(
        self,
        image_IQF: torch.Tensor,
        time_I: torch.Tensor,
        tokens_BLD: torch.Tensor,
        guidance_I: torch.Tensor,
        control_IQF: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The predicted velocity, (I, Q, F); the images of an identity follow one another."""
        identities, images = len(tokens_BLD), len(image_IQF)
        side = round(image_IQF.shape[1] ** 0.5)
        # FSDP's mixed precision changes the weights' type, not that of what comes in.
        dtype = self.transformer.x_embedder.weight.dtype
        identity_BLT = self.projection(tokens_BLD).to(dtype)
        image = {
            "hidden_states": image_IQF.to(dtype),
            "encoder_hidden_states": self.prompt_1TD.to(dtype).expand(images, -1, -1),
            "pooled_projections": self.pooled_1D.to(dtype).expand(images, -1),
            "timestep": time_I,
            "img_ids": positions(side, image_IQF.device),
            "txt_ids": image_IQF.new_zeros(self.prompt_1TD.shape[1], 3),
            "guidance": guidance_I if self.transformer.config.guidance_embeds else None,
        }
        residuals = self.residuals(image, control_IQF)
        with without_autocast(image_IQF.device) if self.frozen else nullcontext():
            velocity_IQF: torch.Tensor = self.transformer(
                **image,
                **residuals,
                joint_attention_kwargs=attend(identity_BLT, images // identities),
                return_dict=False,
            )[0]
        return velocity_IQF

    def residuals(
        self,
        image: dict[str, Any],  # noqa: ARG002 - for decoders that have a condition
        control_IQF: torch.Tensor | None,
    ) -> dict[str, list[torch.Tensor]]:
        """What a condition adds to the transformer's blocks, as its arguments: nothing here.

        Raises:
            ValueError: a condition is given, which this decoder does not take.
        """
        if control_IQF is not None:
            raise ValueError(
                "the flow decoder takes no condition besides the identity; use the control decoder"
            )
        return {}

    def _latents(self, batch: Batch) -> torch.Tensor:
        """Latents of the targets, (I, C, H, H)."""
        if self.needs.latents is not None:
            if batch.latents_BNCHH is None:
                raise ValueError(
                    "the batch has no latents, which this decoder reads in place of target images"
                )
            return batch.latents_BNCHH.flatten(0, 1)
        images_BNSSC = pick(batch.images_BKSSC, batch.targets_BN)
        return self.codec.encode(pixels(images_BNSSC, self.config.side).flatten(0, 1))


def sample_times(seeds: torch.Tensor, how: str) -> torch.Tensor:
    """A time for each seed, float32 in [0, 1]."""
    if how == "uniform":
        return uniforms(seeded(seeds, _TIME))
    # The logistic function of a standard normal number (Esser et al., 2024, location 0 and scale 1).
    return torch.sigmoid(normals(seeded(seeds, _TIME), 1)[..., 0])
