"""Disables autocast for frozen networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a frozen network in the precision of its weights; autocast would compute some of it in float32."""
    # The meta device, on which FLOPs are counted, has no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
