"""How the processes stay together: what one of them learns, all of them know before the next step begins.

A process that left the run alone would leave the others waiting in an exchange for ever. So nothing ends the run
but an exchange: once a step the processes add up a few numbers on the CPU (is a stop asked for, did anything
fail, what was counted), which costs a fraction of a millisecond and no synchronisation with the GPU. When
something failed, the messages are gathered and every process raises the same `RunEnded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from settings.section import ConfigError
from shards.atomic import OutOfSpace
from shards.metadata import DatasetError
from training.engine.processes import World
from training.errors import RunEnded, TrainingError

IN_WORDS = (TrainingError, ConfigError, DatasetError, OutOfSpace)
"""Errors whose message is for the person; all others are bugs and keep their traceback."""

T = TypeVar("T")


@dataclass(frozen=True)
class Agreement:
    """What all processes know after an exchange."""

    stop: bool
    """One of them was asked to stop."""
    counts: list[int]
    """The sums over all of them."""


class Consensus:
    """The exchanges among the processes of a run; each call is made by all of them, in the same order."""

    def __init__(self, world: World) -> None:
        self.world = world

    def agree(self, counts: Sequence[int] = (), stop: bool = False, problem: str | None = None) -> Agreement:
        """Add up `counts`, and see whether a process must stop or has a problem.

        Args:
            counts: as many on every process; 64 bits, wrapping around.
            stop: this process was asked to stop.
            problem: what is wrong here, if anything.

        Raises:
            RunEnded: a process has a problem; the message holds those of all.
        """
        sums = torch.tensor([int(stop), int(problem is not None), *counts], dtype=torch.int64)
        dist.all_reduce(sums, group=self.world.control)
        stopping, failed, *counted = sums.tolist()
        if failed:
            raise RunEnded(self._gathered(problem))
        return Agreement(bool(stopping), counted)

    @contextmanager
    def together(self) -> Iterator[None]:
        """When the block fails in words on one process, it fails on all; the block must hold no exchange.

        Raises:
            RunEnded: it failed on some process.
        """
        problem, cause = None, None
        try:
            yield
        except IN_WORDS as error:
            problem, cause = str(error), error
        try:
            self.agree(problem=problem)
        except RunEnded as ended:
            raise ended from cause

    def from_leader(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all of them.

        Raises:
            RunEnded: it failed in words there.
        """
        made: list[T | None] = [None]
        with self.together():
            if self.world.leads:
                made[0] = make()
        dist.broadcast_object_list(made, src=0, group=self.world.control)
        return cast("T", made[0])

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        values: list[T | None] = [None] * self.world.world_size
        dist.all_gather_object(values, value, group=self.world.control)
        return cast("list[T]", values)

    def _gathered(self, problem: str | None) -> str:
        """Each message once, and who says it where that is not everybody."""
        said: dict[str, list[int]] = {}
        for rank, text in enumerate(self.gather(problem or "")):
            if text:
                said.setdefault(text, []).append(rank)
        if len(said) == 1 and len(next(iter(said.values()))) == self.world.world_size:
            return next(iter(said))
        return "\n".join(f"process {_ranks(ranks)}: {text}" for text, ranks in said.items())


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:4]))
    return f"{shown} and {len(ranks) - 4} more" if len(ranks) > 4 else shown
