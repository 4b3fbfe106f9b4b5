"""How the small programs of experiments train, and what they print meanwhile."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from settings.units import duration

REPORT_S = 10.0
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01


def message(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Progress:
    """Work of a known length: prints how much is done and the time left, every ten seconds and at its end."""

    def __init__(self, doing: str, total: int, of: str) -> None:
        """Begin.

        Args:
            doing: what is done, such as `encoding`.
            total: of what it is done to.
            of: what that is, such as `images`.
        """
        self._doing, self._total, self._of = doing, total, of
        self._done = 0
        self._began = self._reported = time.monotonic()

    def add(self, count: int) -> bool:
        """Note that more is done; whether it is time to `show` it."""
        self._done += count
        return self._done >= self._total or time.monotonic() - self._reported >= REPORT_S

    def show(self, also: str = "") -> None:
        """Print a line; the time left follows from the mean rate so far."""
        self._reported = time.monotonic()
        passed_s = self._reported - self._began
        if self._done < self._total:
            time_text = f"{duration(passed_s * (self._total - self._done) / max(1, self._done))} left"
        else:
            time_text = f"took {duration(passed_s)}"
        done = f"{self._done:,} of {self._total:,} {self._of}"
        message(f"{self._doing}: {', '.join(filter(None, (done, also, time_text)))}")


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
    """Train with AdamW, linear warm-up, cosine decay, and gradients of at most norm 1.

    Args:
        parameters: that are trained.
        loss_at: the loss of a step, counted from 0, and the value that is reported of it.
        steps: of the training.
        peak: highest learning rate.
        warmup_steps: until the peak.
        reported: what the reported value is; its mean since the last line is printed.
        betas: of AdamW.
        weight_decay: of AdamW.
    """
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=peak, betas=betas, weight_decay=weight_decay)
    progress, values = Progress("training", steps, "steps"), []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate(peak, step, steps, warmup_steps)
        loss, value = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        values.append(value)
        if progress.add(1):
            progress.show(f"{reported} {sum(values) / len(values):.4f}")
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
