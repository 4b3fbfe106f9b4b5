"""Random numbers on the device as pure functions of a seed: nothing has to be saved with a checkpoint.

All of it is arithmetic on 64-bit integers that wraps around, so CPU and GPU agree on every bit of it; what is made
of the integers with logarithms and cosines agrees to the last digits of float32.

Letters in names give the shape: `_` any leading dimensions, K numbers drawn for each seed.
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
    """Shift right and fill with zeros; torch fills int64 with the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def seeded(seeds: torch.Tensor, use: int) -> torch.Tensor:
    """Seeds of one use out of many: what is drawn from them has nothing to do with what other uses draw."""
    return mixed(seeds + signed(use))


def uniforms(seeds: torch.Tensor) -> torch.Tensor:
    """One number for each int64 seed, evenly spread over [0, 1): float32, a multiple of 2^-24."""
    return shifted(mixed(seeds + signed(GOLDEN)), 40).float() * 2.0**-24


def normals(seeds: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers with the standard normal distribution, (..., count) float32, each row from its int64 seed.

    Each 64 bits give two of them (Box and Muller, 1958).
    """
    pairs = (count + 1) // 2
    counters_K = torch.arange(1, pairs + 1, device=seeds.device) * signed(GOLDEN)
    bits = mixed(seeds[..., None] + counters_K)
    # Between two steps of 2^-32: the logarithm of 0 is never taken.
    length = torch.sqrt(-2 * torch.log((shifted(bits, 32).float() + 0.5) * 2.0**-32))
    angle = (bits & _LOW_BITS).float() * (2 * math.pi * 2.0**-32)
    return torch.cat([length * torch.cos(angle), length * torch.sin(angle)], dim=-1)[..., :count]
