"""Which sample comes when: pure arithmetic, so that resuming is exact and needs nothing but a step count.

Positions 0, 1, 2, … run over all epochs without an end. Position p is in epoch p // n, n being the identities of
the split, and each epoch is a permutation of the identities that depends on nothing but the seed and the epoch.
Step s of the optimiser takes the positions from s · G on, G being the identities of a step over all processes;
rank r of W takes every W-th of them, beginning with the r-th. Steps run across the borders of epochs. Hence every
identity comes exactly once an epoch, nothing is dropped or repeated to make numbers even, and every rank has the
same number of steps. W decides only which rank takes what: a run may resume on another number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from settings.section import ConfigError
from training.data.hashing import hash64, splitmix64
from training.errors import TrainingError


class Place(NamedTuple):
    """An identity within the endless order."""

    epoch: int
    row: int
    """Number of the identity: the rank of its key in the index, within its split."""


@dataclass(frozen=True)
class Order:
    """The endless order of the identities of a split."""

    identities: int
    seed: int

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """The identities of an epoch in their order: a permutation of 0 … identities - 1."""
        return _shuffled(self.identities, self.seed, epoch)

    def places(self, positions: range) -> list[Place]:
        """The identities at some positions, in the order of the positions."""
        found = []
        for position in positions:
            epoch, place = divmod(position, self.identities)
            found.append(Place(epoch, int(self.rows(epoch)[place])))
        return found


@dataclass(frozen=True)
class Share:
    """What one rank takes of every step, cut into micro-batches of equal size."""

    batch: int
    """Identities of a step, over all processes."""
    per_process: int
    """Identities of a micro-batch."""
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        at_once = self.world_size * self.per_process
        if self.batch % at_once:
            fitting = [n for n in range(1, self.batch + 1) if self.batch % (self.world_size * n) == 0]
            remedy = (
                f"with {self.world_size} processes, run.per_process may be {', '.join(map(str, fitting))}"
                if fitting
                else f"batch must be a multiple of the {self.world_size} processes"
            )
            raise ConfigError(
                f"batch={self.batch} cannot be cut into micro-batches of run.per_process={self.per_process} "
                f"on {self.world_size} processes: {remedy}"
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches of a step on each rank."""
        return self.batch // (self.world_size * self.per_process)

    def positions(self, step: int) -> range:
        """What this rank takes of a step."""
        first = step * self.batch
        return range(first + self.rank, first + self.batch, self.world_size)

    def micro_batches(self, start_step: int) -> Iterator[range]:
        """The positions of this rank's micro-batches, from a step on, without an end."""
        step = start_step
        while True:
            positions = self.positions(step)
            for first in range(0, len(positions), self.per_process):
                yield positions[first : first + self.per_process]
            step += 1


def check_enough(identities: int, batch: int, root: str) -> None:
    """Refuse a batch that would hold an identity twice.

    Raises:
        TrainingError: the split has fewer identities than a step takes.
    """
    if identities < batch:
        raise TrainingError(
            f"{root} has {identities} training identities, fewer than the batch of {batch}: a step would hold "
            f"an identity twice. Set batch to {identities} or less, or use a larger dataset"
        )


@lru_cache(maxsize=8)
def _shuffled(identities: int, seed: int, epoch: int) -> NDArray[np.int64]:
    # splitmix64 is a bijection, so no two rows are equal and the order has no ties to break.
    mixed = splitmix64(np.arange(identities, dtype=np.uint64) ^ np.uint64(hash64("order", seed, epoch)))
    order = np.argsort(mixed).astype(np.int64)
    order.setflags(write=False)
    return order
