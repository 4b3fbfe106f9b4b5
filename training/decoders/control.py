"""The control decoder: flow matching in the pose of a landmark image, with the person of the identity tokens.

A ControlNet sees the noisy latents and the latents of the target's landmark image (`faces.landmark_image`), and
adds residuals to the blocks of the frozen transformer. Its output layers start at zero, so at step 0 the decoder
is the flow decoder that it starts from. Loss, noise and times are those of the flow decoder.

Source: Omni-ID, section 4.1 (controllable generation); Zhang et al., "Adding Conditional Control to Text-to-Image
Diffusion Models", 2023.

Letters in names give the shape:
    B  identities      N  targets of one        I  images, B x N
    C  colours (3)     H  side in pixels        Q  tokens of an image F  numbers of a token
    L  identity tokens D  channels of one
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.data.batch import Batch, pick
from training.data.needs import KeptLatents
from training.decoders.base import Column
from training.decoders.control_config import ControlConfig
from training.decoders.flow import GRID_TARGETS, FlowDecoder, Flux
from training.models.flux_latents import pack
from training.models.pixels import pixels


class ControlDecoder(FlowDecoder):
    """ControlNet, projection and adapter in training, around a frozen transformer.

    Args:
        width: channels of an identity token.
        config: of the decoder.
        flux: whose transformer is frozen.
        controlnet: a `FluxControlNetModel` that was made of it.
        kept: see `FlowDecoder`.
    """

    def __init__(
        self, width: int, config: ControlConfig, flux: Flux, controlnet: Any, kept: KeptLatents | None = None
    ) -> None:
        super().__init__(width, config, flux, kept)
        self.controlnet = controlnet
        self.needs = replace(self.needs, landmark_images=config.side)

    def control(self, batch: Batch) -> torch.Tensor:
        """Latents of the targets' landmark images, (I, Q, F)."""
        if batch.landmark_images_BNHHC is None:
            raise ValueError("the batch has no landmark images, which this decoder is conditioned on")
        return self.encode_landmarks(batch.landmark_images_BNHHC.flatten(0, 1))

    def encode_landmarks(self, images_IHHC: torch.Tensor) -> torch.Tensor:
        """The condition of landmark images, (I, Q, F).

        Args:
            images_IHHC: uint8, RGB (`faces.landmark_image`).
        """
        side = images_IHHC.shape[1]
        return pack(self.codec.encode(pixels(images_IHHC, side)))

    def columns(self, batch: Batch, tokens_BLD: torch.Tensor) -> list[Column]:
        """For some targets: landmark image, sample in its pose, and the target itself."""
        config, sampling = self.config, self.usual_sampling()
        shown = batch.targets_BN[:, :GRID_TARGETS]
        targets_BNCSS = pixels(pick(batch.images_BKSSC, shown), config.side)
        landmarks_BNHHC = batch.landmark_images_BNHHC
        if landmarks_BNHHC is None:
            raise ValueError("the batch has no landmark images, which this decoder is conditioned on")
        found: list[Column] = []
        for number in range(shown.shape[1]):
            images_BHHC = landmarks_BNHHC[:, number]
            control_BQF = self.encode_landmarks(images_BHHC)
            sample = self.sample(tokens_BLD, batch.seeds_B + number, config.side, sampling, control_BQF)
            found += [
                Column(f"landmarks {number + 1}", pixels(images_BHHC, config.side)),
                Column(f"sample {number + 1}", sample.cpu()),
                Column(f"target {number + 1}", targets_BNCSS[:, number]),
            ]
        return found

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer blocks, and those of the ControlNet."""
        yield from super().blocks()
        yield from self.controlnet.transformer_blocks
        yield from self.controlnet.single_transformer_blocks

    def residuals(
        self, image: dict[str, Any], control_IQF: torch.Tensor | None
    ) -> dict[str, list[torch.Tensor]]:
        """What the ControlNet adds to the transformer's blocks; nothing without a condition."""
        if control_IQF is None:
            return {}
        image_IQF = image["hidden_states"]
        # Its weights are trained, in float32: autocast computes them in the precision of the run.
        inputs = {
            name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in image.items()
        }
        double, single = self.controlnet(
            **inputs, controlnet_cond=control_IQF.float(), joint_attention_kwargs=None, return_dict=False
        )
        found = {"controlnet_block_samples": double, "controlnet_single_block_samples": single}
        return {
            name: [residual.to(image_IQF.dtype) for residual in residuals]
            for name, residuals in found.items()
            if residuals is not None
        }
