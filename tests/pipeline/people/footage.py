"""Fingerprints of footage that does not exist: a face that moves by a sum of slow waves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.fingerprint import SAMPLE

AMPLITUDES = np.array([400.0] * 3 + [60.0] * 3 + [12.0] * 3 + [12.0] * 15)
"""As those of a person who talks, in the units of `SAMPLE`."""


def times(start_s: float, seconds: float, per_second: float = 6.0) -> NDArray[np.float64]:
    """Moments that are analysed, in the time of the footage."""
    return start_s + np.arange(int(seconds * per_second) + 1) / per_second


def filmed(
    take: int, at_s: NDArray[np.float64], *, noise: float = 0.05, still: float = 1.0, seed: int = 0
) -> bytes:
    """The fingerprint of a file that shows a take at some moments; its own time starts with the first.

    Args:
        take: which footage.
        at_s: moments of the footage.
        noise: of the measurements, as a part of the movement.
        still: factor of the movement.
        seed: of the noise.
    """
    waves = np.random.default_rng(take)
    hertz = waves.uniform(0.1, 1.2, (len(AMPLITUDES), 5))
    phase = waves.uniform(0, 2 * np.pi, (len(AMPLITUDES), 5))
    moved = np.sin(2 * np.pi * at_s[:, None, None] * hertz + phase).mean(axis=2) * AMPLITUDES * 1.4
    shaken = np.random.default_rng([take, seed]).normal(0, noise, moved.shape) * AMPLITUDES
    values = np.round(moved * still + shaken)
    samples = np.zeros(len(at_s), SAMPLE)
    samples["time_ms"] = np.round((at_s - at_s[0]) * 1000)
    start = 0
    for field, width in (("pose", 3), ("place", 3), ("expression", 3), ("picture", 15)):
        samples[field] = values[:, start : start + width]
        start += width
    return samples.tobytes()
