"""Images to latents and back: latents of FLUX's autoencoder, or pixels when there is no FLUX.

Latents are packed two by two into tokens, as FLUX takes them: channel, then row, then column within a token.

Letters in names give the shape:
    B  images    S  side of an image in pixels    C  channels of latents    H  side of latents
    Q  tokens of an image, in row-major order     F  numbers of a token (4 C)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from training.models.flux_folder import load_component, load_errors
from training.models.precision import without_autocast


class Codec(Protocol):
    """Turns images into latents and back. Never trained."""

    name: str
    """Identifies the latents: codecs of equal names give equal latents."""
    factor: int
    """Pixels along a side of a latent."""
    channels: int
    """C."""
    dtype: torch.dtype
    """Of latents."""

    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, H, H) of images in [0, 1], about as wide as a standard normal distribution."""

    def decode(self, latents_BCHH: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, S, S) in [0, 1], float32."""


class VaeCodec:
    """FLUX's autoencoder, or another of its kind.

    It is not a submodule of the model: it is never trained, so DDP has nothing to reduce, and FSDP would shard its
    0.2 GB and gather them in every step. It moves to the device of the first images.

    Args:
        vae: a frozen `AutoencoderKL`; latents have the dtype of its weights.
        name: see `Codec.name`.
    """

    def __init__(self, vae: Any, name: str) -> None:
        self._vae = vae
        self.name = name
        config: Any = vae.config
        self._shift = float(config.shift_factor or 0)
        self._scale = float(config.scaling_factor)
        self.channels = int(config.latent_channels)
        self.dtype: torch.dtype = vae.dtype
        self.factor = 2 ** (len(config.block_out_channels) - 1)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> VaeCodec:
        """An autoencoder from its directory.

        Raises:
            TrainingError: it cannot be loaded.
        """
        from diffusers import AutoencoderKL

        vae = load_component(folder, AutoencoderKL, dtype)
        with load_errors(folder):
            return cls(vae, f"vae-{_digest(vae)}-{str(dtype).removeprefix('torch.')}")

    @property
    def network(self) -> Any:
        """The autoencoder itself."""
        return self._vae

    @torch.no_grad()
    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """The mean of what the encoder gives, which is the same every time; its spread is tiny.

        One image at a time: the same kernels run whatever else is in the batch, so latents that were kept are
        those of a training step to the bit. At 512 pixels an image is enough work for a GPU.
        """
        vae = self._at(pixels_B3SS.device)
        with without_autocast(pixels_B3SS.device):
            found = [
                vae.encode(pixels_13SS.to(vae.dtype) * 2 - 1).latent_dist.mean
                for pixels_13SS in pixels_B3SS.split(1)
            ]
        return (torch.cat(found) - self._shift) * self._scale

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
    """Pixels as latents, without an autoencoder: the pixels of a square are the channels of its latent.

    Args:
        patch: side of a token in pixels; that of a latent is half of it.
    """

    _MIDDLE, _SPREAD = 0.5, 0.25
    """Roughly those of photographs, so that latents have about the variance of the noise."""

    def __init__(self, patch: int) -> None:
        self.factor = patch // 2
        self.channels = 3 * self.factor**2
        self.name = f"pixels-{self.factor}"
        self.dtype = torch.float32

    def encode(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """Centred, scaled and rearranged."""
        return functional.pixel_unshuffle((pixels_B3SS.float() - self._MIDDLE) / self._SPREAD, self.factor)

    def decode(self, latents_BCHH: torch.Tensor) -> torch.Tensor:
        """The inverse of `encode`, clamped to [0, 1]."""
        pixels_B3SS = functional.pixel_shuffle(latents_BCHH.float(), self.factor)
        return (pixels_B3SS * self._SPREAD + self._MIDDLE).clamp(0, 1)


def pack(latents_BCHH: torch.Tensor) -> torch.Tensor:
    """Latents as tokens, (B, Q, F)."""
    blocks_BCHHpp = latents_BCHH.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).movedim(3, 4)
    return blocks_BCHHpp.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def unpack(tokens_BQF: torch.Tensor) -> torch.Tensor:
    """Tokens of square images as latents, (B, C, H, H); the inverse of `pack`."""
    side = round(tokens_BQF.shape[1] ** 0.5)
    blocks_BHHCpp = tokens_BQF.unflatten(1, (side, side)).unflatten(3, (-1, 2, 2))
    return blocks_BHHCpp.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def positions(side: int, device: torch.device) -> torch.Tensor:
    """Position ids of an image of `side` x `side` tokens, for rotary embeddings: (Q, 3) of 0, row, column."""
    numbers_H = torch.arange(side, device=device, dtype=torch.float32)
    rows_HH, columns_HH = torch.meshgrid(numbers_H, numbers_H, indexing="ij")
    return torch.stack([torch.zeros_like(rows_HH), rows_HH, columns_HH], dim=-1).flatten(0, 1)


def _digest(vae: Any) -> str:
    """Digest of the weights, the shift and the scale; independent of the path."""
    weights = vae.state_dict()
    found = hashlib.sha256(f"{vae.config.shift_factor} {vae.config.scaling_factor}".encode())
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
