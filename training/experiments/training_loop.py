"""The training loop of the small programs of experiments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from training.experiments.options import message
from training.progress import Progress

BETAS = (0.9, 0.99)
"""Of AdamW, where a program sets no others."""
WEIGHT_DECAY = 0.01
"""Likewise."""
GRADIENT_NORM = 1.0
"""Norm to which gradients are clipped."""


def fit(
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], tuple[torch.Tensor, float]],
    steps: int,
    *,
    peak: float,
    warmup_steps: int,
    reported: str = "loss",
    betas: tuple[float, float] = BETAS,
    weight_decay: float = WEIGHT_DECAY,
) -> None:
    """Train with AdamW, linear warm-up and cosine decay.

    Args:
        parameters: that are trained.
        loss_at: the loss of a step, counted from 0, and the value that is reported of it.
        steps: of the training.
        peak: highest learning rate.
        warmup_steps: until the peak.
        reported: what the reported value is; its mean since the last line of progress is printed.
        betas: of AdamW.
        weight_decay: of AdamW.
    """
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=peak, betas=betas, weight_decay=weight_decay)
    progress, values = Progress("trained", "steps", steps, message), list[float]()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate(peak, step, steps, warmup_steps)
        loss, value = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad()
        values.append(value)
        if progress.advance(also=lambda: f"{reported} {sum(values) / len(values):.4f}"):
            values.clear()


def learning_rate(peak: float, step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, and cosine decay to zero.

    Args:
        peak: highest rate.
        step: from 0.
        steps: of the training.
        warmup_steps: until the peak.
    """
    return peak * min(1.0, (step + 1) / warmup_steps) * (1 + math.cos(math.pi * step / steps)) / 2
