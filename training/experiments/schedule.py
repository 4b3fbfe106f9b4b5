"""The learning rate of the small programs of experiments."""

from __future__ import annotations

import math


def learning_rate(peak: float, step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, and cosine decay to zero.

    Args:
        peak: highest rate.
        step: from 0.
        steps: of the training.
        warmup_steps: until the peak.
    """
    return peak * min(1.0, (step + 1) / warmup_steps) * (1 + math.cos(math.pi * step / steps)) / 2
