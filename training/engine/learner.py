"""The state of training on all ranks: the model, its optimiser, and the EMA of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from training.config import Config
from training.data.batch import Batch
from training.engine.ema import Ema
from training.engine.optimiser import Updates
from training.engine.parallel import ParallelModel, whole
from training.engine.processes import World
from training.model import IdentityModel

EMA, WEIGHTS = "ema", "weights"
"""Groups of the tensors of a checkpoint."""


@dataclass(frozen=True)
class Taken:
    """The figures of a step, on the device: reading them waits for it.

    Attributes:
        loss: weighted sum over the decoders, mean over the whole batch, () float32.
        losses_R: that of each decoder, not weighted, (R,) float32.
        gradient_norm: before clipping, () float32.
    """

    loss: torch.Tensor
    losses_R: torch.Tensor
    gradient_norm: torch.Tensor


class Learner:
    """Learns from batches.

    Args:
        model: with the same weights on every rank; changed in place.
        config: of the run.
        world: the ranks.
    """

    def __init__(self, model: IdentityModel, config: Config, world: World) -> None:
        self.model = model
        weights = {name: decoder.weight for name, decoder in config.decoders.chosen()}
        self.parallel = ParallelModel(model, config.run, world, weights)
        self.updates = Updates(self.parallel.parameters, config.optimiser, config.steps)
        decay = config.optimiser.ema_decay
        self.ema = Ema(self.parallel.parameters, decay) if decay else None
        self._warm = False
        self._is_main = world.is_main

    def learn(self, step: int, batches: Sequence[Batch], targets: int) -> Taken:
        """Take step 0, 1, …; the host does not wait for it.

        Args:
            step: which.
            batches: the micro-batches of this rank, on the CPU.
            targets: targets of undamaged samples, over all ranks.
        """
        if not self._warm:
            self.parallel.warm_up(batches[0])
            self._warm = True
        losses_R = self.parallel.backward(batches, targets)
        loss = self.parallel.weighted(losses_R)
        norm = self.updates.apply(step, loss)
        if self.ema is not None:
            self.ema.update(step)
        return Taken(loss, losses_R, norm)

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint, by name: the tensors themselves, to write or to read into."""
        groups = {
            WEIGHTS: {name: weight.detach() for name, weight in self.parallel.parameters.items()},
            "optimiser": self.updates.state(),
            EMA: self.ema.state() if self.ema is not None else {},
        }
        return {f"{group}.{name}": value for group, found in groups.items() for name, value in found.items()}

    @contextmanager
    def evaluating(self) -> Iterator[IdentityModel]:
        """The model with the weights that are validated: their EMA, where one is kept."""
        with self.parallel.evaluating() as model:
            if self.ema is None:
                yield model
            else:
                with self.ema.in_place():
                    yield model

    def representation_weights(self) -> dict[str, torch.Tensor]:
        """The representation's state with the weights that are validated, whole.

        A collective: rank 0 gets them and the others nothing, so that a node holds them once and not once a GPU.
        """
        found = {}
        with self.evaluating() as model:
            for name, value in model.representation.state_dict().items():
                gathered = whole(value)
                if self._is_main:
                    found[name] = gathered
        return found
