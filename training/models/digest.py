"""Networks of the same shape, told apart."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

SAMPLED = 16
"""Numbers of each weight that are looked at."""


def weights_digest(*modules: Any) -> str:
    """Tells networks of the same shape apart by some numbers of each weight, in whatever precision they are.

    There are up to 12 billion of them, and another version or a fine-tuned one differs in nearly all.
    """
    found = hashlib.sha256()
    for module in modules:
        for name, weight in sorted(module.state_dict().items()):
            values = weight.flatten()
            some = values[:: max(1, len(values) // SAMPLED)][:SAMPLED].to(torch.bfloat16).float()
            found.update(f"{name} {tuple(weight.shape)} {some.tolist()}".encode())
    return found.hexdigest()[:32]
