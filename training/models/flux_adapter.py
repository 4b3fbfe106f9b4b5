"""The identity adapter: cross-attention on identity tokens beside FLUX's own attention, which stays as it was.

Each double block of FLUX gets keys and values of its own for the identity (decoupled cross-attention, IP-Adapter).
Beside a frozen FLUX, values start at zero by default, so at step 0 the adapted transformer gives what FLUX gives,
to the bit. Then only the values get a gradient; keys, projection and encoder follow as soon as the values are no
longer zero.

The names of the parameters are diffusers' own (`FluxIPAdapterAttnProcessor`), so they can be exported as they are.

Letters in names give the shape:
    B  identities    N  images of one    L  identity tokens    D  channels of a token
    T  channels of FLUX's text tokens, which the adapter takes
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional

TOKENS_OF_A_VECTOR = 4
"""diffusers' adapter makes four text tokens of each vector of `ip_adapter_image_embeds`."""
_NAME = re.compile(r"transformer_blocks\.(\d+)\.attn\.processor\.(to_[kv]_ip)\.0\.(weight|bias)")


class IdentityProjection(nn.Module):
    """Identity tokens as the adapter takes them, as wide as FLUX's text tokens."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, text_width)
        self.norm = nn.LayerNorm(text_width)

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """(B, L, T)."""
        return self.norm(self.proj(tokens_BLD))


class OncePerPerson(nn.Linear):
    """A linear layer that is computed once for all images of a person, in whatever precision its input has.

    Weights that are trained are float32, FLUX is bfloat16: they are rounded here, where they are used.
    """

    def forward(self, tokens_BNLT: torch.Tensor) -> torch.Tensor:
        """Keys or values of each image, (B N, L, …), of which those of a person must be alike."""
        dtype = tokens_BNLT.dtype
        tokens_BLT = tokens_BNLT[:, 0]
        found_BLx = functional.linear(tokens_BLT, self.weight.to(dtype), self.bias.to(dtype))
        return found_BLx[:, None].expand(-1, tokens_BNLT.shape[1], -1, -1).flatten(0, 1)


def add_adapter(transformer: Any, *, zero_initialised: bool) -> None:
    """Put an adapter into a `FluxTransformer2DModel`, whose parameters are the only new ones.

    Args:
        transformer: changed in place.
        zero_initialised: V starts at zero, so that the adapted transformer gives what it gave before; otherwise as
            torch's linear layers start.
    """
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    width, text_width = transformer.inner_dim, transformer.config.joint_attention_dim
    for block in transformer.transformer_blocks:
        processor = FluxIPAdapterAttnProcessor(width, text_width)
        processor.to_k_ip = nn.ModuleList([OncePerPerson(text_width, width)])
        processor.to_v_ip = nn.ModuleList([OncePerPerson(text_width, width)])
        if zero_initialised:
            nn.init.zeros_(processor.to_v_ip[0].weight)
            nn.init.zeros_(processor.to_v_ip[0].bias)
        block.attn.set_processor(processor)


def attend(tokens_BLT: torch.Tensor, images: int) -> dict[str, list[torch.Tensor]]:
    """`joint_attention_kwargs` of an adapted transformer, for `images` of each identity."""
    return {"ip_hidden_states": [tokens_BLT[:, None].expand(-1, images, -1, -1)]}


def image_embeds(tokens_LD: torch.Tensor) -> torch.Tensor:
    """One person's identity tokens as a pipeline of diffusers takes them, `ip_adapter_image_embeds=[…]`.

    An exported adapter makes four text tokens of four identity tokens, end to end. Where their number L is no
    multiple of four, as CLIP's 257, the sequence is repeated k times, twice or four times. Attention is the same:
    the softmax gives each copy the k-th part of the token's weight.

    Args:
        tokens_LD: of one person.

    Returns:
        (1, k L / 4, 4 D), of the type and on the device of the tokens.
    """
    copies = TOKENS_OF_A_VECTOR // math.gcd(len(tokens_LD), TOKENS_OF_A_VECTOR)
    return tokens_LD.repeat(copies, 1).unflatten(0, (-1, TOKENS_OF_A_VECTOR)).flatten(1)[None]


def set_scale(transformer: Any, scale: float) -> None:
    """How much of the adapter is added; 1 is what it was trained with, 0 is FLUX alone."""
    for block in transformer.transformer_blocks:
        block.attn.processor.scale = [scale]


def name_in_file(name: str) -> str | None:
    """The name of an adapter's parameter in a file of diffusers, `0.to_k_ip.weight`; None for all others.

    Args:
        name: in the transformer, as diffusers has it.
    """
    found = _NAME.fullmatch(name)
    return f"{found[1]}.{found[2]}.{found[3]}" if found else None


def name_in_transformer(name: str) -> str:
    """The inverse of `name_in_file`."""
    number, kind, what = name.split(".")
    return f"transformer_blocks.{number}.attn.processor.{kind}.0.{what}"
