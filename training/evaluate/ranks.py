"""What an evaluation needs of the ranks that torchrun started; without torchrun there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch

from training.engine.collectives import Collectives
from training.engine.processes import World, processes

T = TypeVar("T")
TIMEOUT = timedelta(days=1)
"""Ranks meet after each source. One may have hours more to generate, where others find images of an earlier run;
torchrun ends the others when a rank has ended."""


class Ranks:
    """This process among the others."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._collectives = Collectives(world)
        self.device: torch.device = world.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the report."""
        return self._world.is_main

    def message(self, text: str) -> None:
        """Print a line on standard error, once."""
        self._world.message(text)

    def share(self, items: Sequence[T]) -> list[T]:
        """The items of this rank: every n-th, so that shares differ by one at most."""
        return list(items[self._world.rank :: self._world.world_size])

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on all ranks; its user-facing error ends all."""
        return self._collectives.broadcast(make)

    def gather(self, make: Callable[[], T]) -> list[T]:
        """What each rank makes, by rank, on all ranks; a user-facing error of one rank ends all."""
        made: list[T] = []
        with self._collectives.barrier():
            made.append(make())
        return self._collectives.all_gather(made[0])

    def merged(self, make: Callable[[], list[T]], order: Callable[[T], int]) -> list[T]:
        """The items that all ranks make, in one order that does not depend on the number of ranks."""
        return sorted((item for share in self.gather(make) for item in share), key=order)


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the other ranks for the time of the block.

    Raises:
        TrainingError: the ranks cannot find each other, or another one has gone.
    """
    with processes(deterministic=False, timeout=TIMEOUT) as world:
        yield Ranks(world)
