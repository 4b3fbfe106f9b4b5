"""A digest that distinguishes networks of the same shape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

SAMPLED = 16
"""Numbers of each weight that enter the digest."""


def weights_digest(*modules: Any) -> str:
    """Digest of some numbers of each weight, independent of their precision.

    Some are enough: another version or a fine-tuned one of a network differs in nearly all of its numbers, of
    which there are up to 12 billion.
    """
    found = hashlib.sha256()
    for module in modules:
        for name, weight in sorted(_tensors(module).items()):
            values = weight.flatten()
            some = values[:: max(1, len(values) // SAMPLED)][:SAMPLED].to(torch.bfloat16).float()
            found.update(f"{name} {tuple(weight.shape)} {some.tolist()}".encode())
    return found.hexdigest()[:32]


def _tensors(module: Any) -> Mapping[str, torch.Tensor]:
    return module if isinstance(module, dict) else module.state_dict()
