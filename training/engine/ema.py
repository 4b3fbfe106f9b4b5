"""The exponential moving average of the weights, which is what is validated and exported.

It is kept in float32 beside the weights, sharded as they are, so that it costs one more copy of them and no
collective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """The decay of step 0, 1, …; it starts low.

    A fixed 0.9999 would keep the initial random weights for tens of thousands of steps.
    """
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """The exponential moving average (EMA) of some weights.

    Args:
        parameters: by name; the EMA starts at their current values.
        decay: share of the old EMA that stays in a step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._weights = {name: parameter.detach() for name, parameter in parameters.items()}
        self._decay = decay
        self._ema = {name: weight.clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the current weights."""
        torch._foreach_lerp_(
            list(self._ema.values()), list(self._weights.values()), 1 - decay_at(step, self._decay)
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Swap the weights with their EMA for the time of the `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of the EMA by the names of the weights, not copies."""
        return dict(self._ema)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()  # one tensor at a time: no second copy of the whole
            weight.copy_(self._ema[name])
            self._ema[name].copy_(kept)
