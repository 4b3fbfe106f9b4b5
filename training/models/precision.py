"""bfloat16: autocast for what is trained, and none for frozen networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def bfloat16(device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 where torch's autocast does so; weights stay as they are."""
    # In bfloat16 on CPUs, torch's fused attention takes 1.3 to 4 times the time of matrix products, most of it in
    # the backward pass (torch 2.15, AVX-512).
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16), attention:
        yield


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a frozen network in the precision of its weights; autocast would compute some of it in float32."""
    # The meta device, on which FLOPs are counted, has no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
