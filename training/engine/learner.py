"""Everything that learns, on all processes: the stage, its optimiser, and the average of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from training.config import Config
from training.data.batch import Batch
from training.engine.ema import Average
from training.engine.optimiser import Updates
from training.engine.parallel import ParallelStage, whole
from training.engine.processes import World
from training.models.stage import Stage


@dataclass(frozen=True)
class Taken:
    """What came of a step, on the device: to look at it is to wait for it."""

    loss: torch.Tensor
    """Mean over the whole batch, () float32."""
    gradient_norm: torch.Tensor
    """Before clipping, () float32."""


class Learner:
    """Learns from batches.

    Args:
        stage: alike on every process; changed in place.
        config: of the run.
        world: the processes.
    """

    def __init__(self, stage: Stage, config: Config, world: World) -> None:
        self.stage = stage
        self.parallel = ParallelStage(stage, config.run, world)
        self.updates = Updates(self.parallel.parameters, config.optimiser, config.steps)
        decay = config.optimiser.ema_decay
        self.average = Average(self.parallel.parameters, decay) if decay else None
        self._settled = False
        self._leads = world.leads

    def learn(self, step: int, batches: Sequence[Batch], parts: int) -> Taken:
        """Take step 0, 1, …; the host does not wait for it.

        Args:
            step: which.
            batches: the micro-batches of this process, on the CPU.
            parts: how many parts the loss is a sum over, on all processes.
        """
        if not self._settled:
            self.parallel.settle(batches[0])
            self._settled = True
        loss = self.parallel.backward(batches, parts)
        norm = self.updates.apply(step, loss)
        if self.average is not None:
            self.average.update(step)
        return Taken(loss, norm)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, by name: the tensors themselves, into which one can be read as well."""
        groups = {
            "weights": {name: weight.detach() for name, weight in self.parallel.parameters.items()},
            "optimiser": self.updates.state(),
            "average": self.average.state() if self.average is not None else {},
        }
        return {f"{group}.{name}": value for group, found in groups.items() for name, value in found.items()}

    @contextmanager
    def evaluating(self) -> Iterator[Stage]:
        """The stage with the weights that are to be judged: their average, where one is kept."""
        with self.parallel.evaluating() as stage:
            if self.average is None:
                yield stage
            else:
                with self.average.in_place():
                    yield stage

    def encoder_weights(self) -> dict[str, torch.Tensor]:
        """The encoder's state with the weights that are to be judged, whole.

        Every process must ask for it; the leader gets it and the others nothing, for together they would hold
        it in a machine's memory once for each GPU.
        """
        found = {}
        with self.evaluating() as stage:
            for name, value in stage.encoder.state_dict().items():
                gathered = whole(value)
                if self._leads:
                    found[name] = gathered
        return found
