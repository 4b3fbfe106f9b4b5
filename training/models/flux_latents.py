"""Images as the flow transformer draws them, and back: FLUX's latents, or plain pixels where there is no FLUX.

Latents are packed two by two into tokens, as FLUX takes them: channel, then row, then column within a token.

Letters in names give the shape:
    B  images    S  side of an image in pixels    C  channels of latents    H  side of latents
    Q  tokens of an image, row by row             F  numbers of a token (4 C)
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from training.models.flux_folder import in_words, load_part


class Codec(Protocol):
    """Turns images into latents and back. Never trained."""

    name: str
    """Changes with what the latents are."""
    factor: int
    """Pixels along a side of a latent."""
    channels: int
    """C."""

    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, H, H) of images in [0, 1], about as wide as a standard normal distribution."""

    def decode(self, latents_BCHH: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, S, S) in [0, 1], float32."""


class VaeCodec:
    """FLUX's autoencoder, or another of its kind.

    It is not part of the stage's modules: it is never trained, so DDP has nothing to send of it, and FSDP would
    shard what takes 0.2 GB and gather it again in every step. It moves to where the first images are.

    Args:
        vae: a frozen `AutoencoderKL`; latents are of the type of its weights.
        name: changes with the weights.
    """

    def __init__(self, vae: Any, name: str) -> None:
        self._vae = vae
        self.name = name
        config: Any = vae.config
        self._shift = float(config.shift_factor or 0)
        self._scale = float(config.scaling_factor)
        self.channels = int(config.latent_channels)
        self.factor = 2 ** (len(config.block_out_channels) - 1)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> VaeCodec:
        """An autoencoder from its own folder.

        Raises:
            TrainingError: it cannot be loaded.
        """
        from diffusers import AutoencoderKL

        vae = load_part(folder, AutoencoderKL, dtype)
        with in_words(folder):
            return cls(vae, f"vae-{_digest(vae)}-{str(dtype).removeprefix('torch.')}")

    @property
    def network(self) -> Any:
        """The autoencoder itself."""
        return self._vae

    @torch.no_grad()
    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """The mean of what the encoder gives, which is the same every time; its spread is tiny."""
        vae = self._at(pixels_B3SS.device)
        with without_autocast(pixels_B3SS.device):
            found = vae.encode(pixels_B3SS.to(vae.dtype) * 2 - 1).latent_dist.mean
        return (found - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents_BCHH: torch.Tensor) -> torch.Tensor:
        """One image at a time: at 512 pixels it takes over a gigabyte."""
        vae = self._at(latents_BCHH.device)
        latents_BCHH = latents_BCHH.to(vae.dtype) / self._scale + self._shift
        with without_autocast(latents_BCHH.device):
            images = [
                vae.decode(latents_1CHH, return_dict=False)[0] for latents_1CHH in latents_BCHH.split(1)
            ]
        return (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)

    def _at(self, device: torch.device) -> Any:
        if self._vae.device != device:
            self._vae = self._vae.to(device)
        return self._vae


class PixelCodec:
    """No autoencoder at all: the pixels of a square are the channels of its latent.

    Args:
        patch: pixels along a side of a token, of which a latent is half.
    """

    _MIDDLE, _SPREAD = 0.5, 0.25
    """Roughly those of photographs: what is learned on is about as wide as the noise."""

    def __init__(self, patch: int) -> None:
        self.factor = patch // 2
        self.channels = 3 * self.factor**2
        self.name = f"pixels-{self.factor}"

    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """Centred, scaled and rearranged."""
        return functional.pixel_unshuffle((pixels_B3SS.float() - self._MIDDLE) / self._SPREAD, self.factor)

    def decode(self, latents_BCHH: torch.Tensor) -> torch.Tensor:
        """The inverse, cut off at black and white."""
        pixels_B3SS = functional.pixel_shuffle(latents_BCHH.float(), self.factor)
        return (pixels_B3SS * self._SPREAD + self._MIDDLE).clamp(0, 1)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """What is frozen has its precision in its weights; autocast would put some of it back into float32."""
    # On the meta device, where FLOPs are counted, there is no autocast to leave out.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def pack(latents_BCHH: torch.Tensor) -> torch.Tensor:
    """Latents as tokens, (B, Q, F)."""
    blocks_BCHHpp = latents_BCHH.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).movedim(3, 4)
    return blocks_BCHHpp.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpack(tokens_BQF: torch.Tensor) -> torch.Tensor:
    """Tokens of square images as latents, (B, C, H, H); the inverse of `pack`."""
    side = round(tokens_BQF.shape[1] ** 0.5)
    blocks_BHHCpp = tokens_BQF.unflatten(1, (side, side)).unflatten(3, (-1, 2, 2))
    return blocks_BHHCpp.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def places(side: int, device: torch.device) -> torch.Tensor:
    """Where the tokens of an image of `side` x `side` tokens lie: (Q, 3), of which the first is always 0."""
    numbers_H = torch.arange(side, device=device, dtype=torch.float32)
    rows_HH, columns_HH = torch.meshgrid(numbers_H, numbers_H, indexing="ij")
    return torch.stack([torch.zeros_like(rows_HH), rows_HH, columns_HH], dim=-1).flatten(0, 1)


def _digest(vae: Any) -> str:
    """Of what the weights are, and what latents are shifted and scaled by, wherever they were loaded from."""
    weights = vae.state_dict()
    found = hashlib.sha256(f"{vae.config.shift_factor} {vae.config.scaling_factor}".encode())
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
