"""Collectives of the ranks on the CPU: what one of them learns, all of them know before the next step begins.

A rank that left the run by itself would leave the others waiting in a collective. So a run ends only in a
collective: once a step, the ranks all-reduce a few integers (is a stop asked for, did anything fail, what was
counted), which takes a fraction of a millisecond and no synchronisation with the GPU. When a rank has failed, the
messages are gathered and every rank raises the same `RunEnded`.
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

USER_ERRORS = (TrainingError, ConfigError, DatasetError, OutOfSpace)
"""Errors whose message is for the user; all others are bugs and keep their traceback."""

T = TypeVar("T")


@dataclass(frozen=True)
class Reduced:
    """What all ranks know after an all-reduce."""

    stop: bool
    """A rank was asked to stop."""
    counts: list[int]
    """The sums over all ranks."""


class Collectives:
    """The collectives of a run; each is called by all ranks, in the same order."""

    def __init__(self, world: World) -> None:
        self.world = world

    def all_reduce(
        self, counts: Sequence[int] = (), stop: bool = False, problem: str | None = None
    ) -> Reduced:
        """Sum `counts` over the ranks, and see whether a rank must stop or has failed.

        Args:
            counts: of the same length on every rank; 64 bits, wrapping around.
            stop: this rank was asked to stop.
            problem: the message of this rank's error, if it has one.

        Raises:
            RunEnded: a rank has failed; the message holds those of all ranks.
        """
        sums = torch.tensor([int(stop), int(problem is not None), *counts], dtype=torch.int64)
        dist.all_reduce(sums, group=self.world.main_group)
        stopping, failed, *counted = sums.tolist()
        if failed:
            raise RunEnded(self._messages(problem))
        return Reduced(bool(stopping), counted)

    @contextmanager
    def barrier(self) -> Iterator[None]:
        """A barrier behind the block: a user-facing error of one rank ends all. The block holds no collective.

        Raises:
            RunEnded: a rank has failed.
        """
        problem, cause = None, None
        try:
            yield
        except USER_ERRORS as error:
            problem, cause = str(error), error
        try:
            self.all_reduce(problem=problem)
        except RunEnded as ended:
            raise ended from cause

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on all ranks.

        Raises:
            RunEnded: rank 0 has failed.
        """
        made: list[T | None] = [None]
        with self.barrier():
            if self.world.is_main:
                made[0] = make()
        dist.broadcast_object_list(made, src=0, group=self.world.main_group)
        return cast("T", made[0])

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""
        values: list[T | None] = [None] * self.world.world_size
        dist.all_gather_object(values, value, group=self.world.main_group)
        return cast("list[T]", values)

    def _messages(self, problem: str | None) -> str:
        """Each message once, with its ranks unless all ranks have it."""
        ranks_of: dict[str, list[int]] = {}
        for rank, text in enumerate(self.all_gather(problem or "")):
            if text:
                ranks_of.setdefault(text, []).append(rank)
        if len(ranks_of) == 1 and len(next(iter(ranks_of.values()))) == self.world.world_size:
            return next(iter(ranks_of))
        return "\n".join(f"rank {_listed(ranks)}: {text}" for text, ranks in ranks_of.items())


def _listed(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:4]))
    return f"{shown} and {len(ranks) - 4} more" if len(ranks) > 4 else shown
