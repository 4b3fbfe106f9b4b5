"""Validation while training: held-out identities, read by all processes together, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import Config
from training.data.dataset import StreamedDataset
from training.data.held_out import HeldOut, held_out_batches
from training.engine.consensus import IN_WORDS, Consensus
from training.errors import Stopped
from training.evaluate.grids import grid_of
from training.evaluate.swap import validate


@dataclass(frozen=True)
class Validated:
    """What came of a validation."""

    figures: dict[str, float]
    grid_HWC: NDArray[np.uint8] | None


class Validator:
    """Measures a stage on held-out identities.

    Args:
        config: of the run.
        dataset: whose test split is used.
        side: of the model's input, in pixels.
        consensus: of the processes.
        stopping: whether this process was asked to stop.
        say: tells the person something; called on all processes alike.
    """

    def __init__(
        self,
        config: Config,
        dataset: StreamedDataset,
        side: int,
        consensus: Consensus,
        *,
        stopping: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._side = side
        self._consensus = consensus
        self._grid = grid_of(config)
        self._stopping = stopping
        self._say = say
        self._said: set[str] = set()

    def validate(
        self, stage: Any, precision: Callable[[], AbstractContextManager[object]]
    ) -> Validated | None:
        """The figures and a grid of samples, empty when no identities are held out; or None, cut short by a stop.

        `val/damaged` counts the held-out identities that are damaged; the other figures leave them out.

        Raises:
            RunEnded: held-out identities cannot be read on some process.
        """
        try:
            return self._validate(stage, precision)
        except Stopped:
            return None

    def _validate(self, stage: Any, precision: Callable[[], AbstractContextManager[object]]) -> Validated:
        world, config = self._consensus.world, self._config
        measured = self._read(
            config.validation.identities,
            config.run.per_process,
            rank=world.rank,
            world_size=world.world_size,
        )
        # All processes draw the same grid: sharded networks need all of them.
        rows = config.validation.grid_identities
        shown = self._read(rows, rows, rank=0, world_size=1)
        if not measured:
            return Validated({}, None)
        damaged = self._note([*measured, *shown])
        batches = [(held_out.batch, held_out.persons) for held_out in measured]
        figures = validate(stage, batches, world.device, self._gather, precision)
        figures["val/damaged"] = damaged
        if len(figures) == 1:
            self._say("nothing is measured: all held-out identities are damaged")
            return Validated(figures, None)
        with precision():
            return Validated(figures, self._grid(stage, shown[0].batch, world.device, rows))

    def _read(self, identities: int, per_process: int, *, rank: int, world_size: int) -> list[HeldOut]:
        """This process's share; one exchange a batch, so that none waits longer for the others than for one batch.

        Raises:
            Stopped: on all processes, when one of them was asked to stop.
            RunEnded: it could not be read on some process.
        """
        reading = held_out_batches(
            self._dataset,
            self._config.data,
            identities,
            per_process,
            self._side,
            rank=rank,
            world_size=world_size,
            stopping=self._stopping,
        )
        found: list[HeldOut] = []
        while True:
            held_out, problem, stop = None, None, self._stopping()
            try:
                held_out = None if stop else next(reading, None)
            except Stopped:
                stop = True
            except IN_WORDS as error:
                problem = str(error)
            if self._consensus.agree(stop=stop, problem=problem).stop:
                raise Stopped("validation was cut short, because a stop was asked for")
            if held_out is None:
                return found
            found.append(held_out)

    def _gather(self, value: Any) -> list[Any]:
        """The values of all processes, unless one of them was asked to stop."""
        if self._consensus.agree(stop=self._stopping()).stop:
            raise Stopped("validation was cut short, because a stop was asked for")
        return self._consensus.gather(value)

    def _note(self, read: Iterable[HeldOut]) -> int:
        """Say what is damaged, on any process, unless an earlier validation did; returns how many identities."""
        own = {key: problem for held_out in read for key, problem in held_out.problems.items()}
        problems = {key: problem for found in self._consensus.gather(own) for key, problem in found.items()}
        for key in sorted(problems.keys() - self._said):
            self._say(f"left out of validation: {problems[key]}")
        self._said |= problems.keys()
        return len(problems)
