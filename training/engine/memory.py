"""What a rank holds in memory all the time, counted on shapes: everything but activations."""

from __future__ import annotations

from torch import nn

from training.config import Config

BYTES = 4
"""Of a number: trained weights, gradients, optimiser state and EMA are float32."""


def copies(config: Config) -> dict[str, int]:
    """Float32 copies of the trained parameters, by what they are for."""
    ema = {"EMA": 1} if config.optimiser.ema_decay else {}
    return {"weights": 1, "gradients": 1, "optimiser": 2} | ema


def held_bytes(config: Config, model: nn.Module, shards: int = 1) -> dict[str, float]:
    """Bytes that a rank holds, by what they are.

    Args:
        config: of the run.
        model: on any device; what is frozen has the dtype that it is kept in.
        shards: ranks that share the parameters; 1 for DDP, the number of ranks for FSDP. Buffers are never shared.
    """
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    frozen = sum(weight.nbytes for weight in weights if not weight.requires_grad)
    sizes = {name: number * trained * BYTES / shards for name, number in copies(config).items()}
    sizes["frozen weights"] = frozen / shards + sum(buffer.nbytes for buffer in model.buffers())
    return sizes
