"""bfloat16: autocast for what is trained, and none for frozen networks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def bfloat16(device: torch.device) -> AbstractContextManager[object]:
    """Compute in bfloat16 where torch's autocast does so; weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16)


def with_plain_attention(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A block's `forward` whose attention is matrix products, for bfloat16 on CPUs.

    There torch's fused attention takes 1.3 to 4 times their time, most of it in the backward pass (torch 2.15,
    AVX-512). It is chosen inside of `forward`, so that activation checkpointing computes the same again.
    """

    def forward_with_plain_attention(*args: Any, **named: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return forward(*args, **named)

    return forward_with_plain_attention


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a frozen network in the precision of its weights; autocast would compute some of it in float32."""
    # The meta device, on which FLOPs are counted, has no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
