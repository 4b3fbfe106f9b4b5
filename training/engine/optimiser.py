"""AdamW with warm-up, cosine decay, clipping, and a guard against steps that are not finite.

The guard never waits for the device: whether loss and gradient are finite is computed there, and AdamW's fused
kernel skips the update (`found_inf`, as torch's gradient scaler does). A counter on the device holds the number
of skipped steps; the host reads it when it logs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from training.config import Optimiser

REPRESENTATION = "representation."
"""Prefix of the names of the representation's parameters."""
TOWER = f"{REPRESENTATION}clip."


def learning_rate(step: int, steps: int, config: Optimiser) -> float:
    """The learning rate of step 0, 1, …: linear warm-up, then half a cosine down to `final_fraction`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    decaying = max(1, steps - 1 - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / decaying)
    share = config.final_fraction + (1 - config.final_fraction) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to biases, norms and learned tokens."""
    return parameter.ndim >= 2 and name.endswith("weight")


class Updates:
    """Turns gradients into new weights.

    Args:
        parameters: by name.
        config: of the optimiser.
        steps: of the whole run, for the cosine.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: Optimiser, steps: int) -> None:
        self._parameters = dict(parameters)
        self._config = config
        self._steps = steps
        device = next(iter(parameters.values())).device
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            decay = config.weight_decay if decays(name, parameter) else 0.0
            scale = config.representation_scale if name.startswith(REPRESENTATION) else 1.0
            scale *= config.tower_scale if name.startswith(TOWER) else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
        self._adamw = torch.optim.AdamW(
            [
                {"params": group, "weight_decay": decay, "scale": scale}
                for (decay, scale), group in groups.items()
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        # AdamW makes its state in the first step; a checkpoint is loaded into it before that.
        for parameter in parameters.values():
            self._adamw.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        """Number of steps without an update because loss or gradient was not finite."""

    def apply(self, step: int, loss: torch.Tensor) -> torch.Tensor:
        """Clip the gradients, change the weights unless something is not finite, and drop the gradients.

        Args:
            step: 0, 1, …
            loss: of the whole batch, () float32, the same on every rank.

        Returns:
            The norm of the gradient before clipping, () float32.
        """
        weights = list(self._parameters.values())
        norm = total_norm([weight.grad for weight in weights])
        torch.nn.utils.clip_grads_with_norm_(weights, self._config.clip_norm, norm)
        not_finite = ~(torch.isfinite(norm) & torch.isfinite(loss))
        self.skipped += not_finite
        for group in self._adamw.param_groups:
            group["lr"] = group["scale"] * learning_rate(step, self._steps, self._config)
        self._adamw.found_inf = not_finite.float()
        self._adamw.step()
        self._adamw.zero_grad()
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint: the tensors themselves, not copies."""
        tensors = {
            f"{name}.{kind}": value
            for name, parameter in self._parameters.items()
            for kind, value in self._adamw.state[parameter].items()
        }
        return tensors | {"skipped": self.skipped}


@torch.no_grad()
def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Norm over all parameters and, where they are sharded, over all ranks."""
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    full: torch.Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return full
