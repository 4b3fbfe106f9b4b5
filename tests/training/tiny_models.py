"""Configurations and models of the tiny size with a masked transformer decoder, for tests of all parts."""

from __future__ import annotations

from typing import Any

import torch

from training.config import Config
from training.decoders.mtd import MaskedTransformerDecoder
from training.model import IdentityModel
from training.models.sizes import SIZES, ModelSize
from training.representations.omniid import OmniIDEncoder

TINY = SIZES["tiny"]


def mtd_config(**changes: Any) -> Config:
    """A configuration of an MTD run; `changes` replace whole sections."""
    values: dict[str, Any] = {
        "output": "out",
        "data": {"root": "root"},
        "representation": {"size": "tiny"},
        "decoders": {"mtd": {}},
    }
    return Config.model_validate(values | changes)


def mtd_model(size: ModelSize = TINY, mask_ratio: float = 0.95, seed: int = 0) -> IdentityModel:
    """A model with random weights, the same for the same arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IdentityModel(OmniIDEncoder(size), {"mtd": MaskedTransformerDecoder(size, mask_ratio)})
