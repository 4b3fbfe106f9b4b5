"""Random numbers on the device as pure functions of a seed, so that a checkpoint needs no generator state.

The integers come from 64-bit arithmetic that wraps around, so they are equal on CPU and GPU. Normal numbers go
through logarithms and cosines, and are equal up to the last digits of float32.

Letters in names give the shape: `_` any leading dimensions, K numbers sampled for each seed.
"""

from __future__ import annotations

import math

import torch

GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_LOW_BITS = (1 << 32) - 1


def mixed(values: torch.Tensor) -> torch.Tensor:
    """The output function of SplitMix64 (Steele et al., "Fast splittable pseudorandom generators", 2014)."""
    values = (values ^ shifted(values, 30)) * signed(_FIRST)
    values = (values ^ shifted(values, 27)) * signed(_SECOND)
    return values ^ shifted(values, 31)


def shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift; torch's own shift of int64 is arithmetic."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def seeded(seeds: torch.Tensor, use: int) -> torch.Tensor:
    """Seeds for one use; numbers sampled for different uses are independent."""
    return mixed(seeds + signed(use))


def uniforms(seeds: torch.Tensor) -> torch.Tensor:
    """One uniform number in [0, 1) for each int64 seed: float32, a multiple of 2^-24."""
    return shifted(mixed(seeds + signed(GOLDEN)), 40).float() * 2.0**-24


def normals(seeds: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers with the standard normal distribution, (..., count) float32, each row from its int64 seed.

    Each 64 bits give two of them (Box and Muller, 1958).
    """
    pairs = (count + 1) // 2
    counters_K = torch.arange(1, pairs + 1, device=seeds.device) * signed(GOLDEN)
    bits = mixed(seeds[..., None] + counters_K)
    # + 0.5, so that the argument of the logarithm is never 0.
    length = torch.sqrt(-2 * torch.log((shifted(bits, 32).float() + 0.5) * 2.0**-32))
    angle = (bits & _LOW_BITS).float() * (2 * math.pi * 2.0**-32)
    return torch.cat([length * torch.cos(angle), length * torch.sin(angle)], dim=-1)[..., :count]
