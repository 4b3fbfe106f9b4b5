"""Validation while training: held-out identities, read by all processes together, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import Config
from training.data.batch import Batch
from training.data.dataset import StreamedDataset
from training.data.held_out import held_out_batches
from training.engine.consensus import Consensus
from training.evaluate.grids import grid_of
from training.evaluate.swap import validate


class Validator:
    """Measures a stage on held-out identities.

    Args:
        config: of the run.
        dataset: whose test split is used.
        side: of the model's input, in pixels.
        consensus: of the processes.
    """

    def __init__(self, config: Config, dataset: StreamedDataset, side: int, consensus: Consensus) -> None:
        self._config = config
        self._dataset = dataset
        self._side = side
        self._consensus = consensus
        self._grid = grid_of(config)

    def validate(
        self, stage: Any, precision: Callable[[], AbstractContextManager[object]]
    ) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """The figures and a grid of samples; neither when no identities are held out.

        Raises:
            RunEnded: held-out identities cannot be read on some process.
        """
        world = self._consensus.world
        with self._consensus.together():
            batches = list(
                self._held_out(
                    self._config.validation.identities,
                    self._config.run.per_process,
                    rank=world.rank,
                    world_size=world.world_size,
                )
            )
            # All processes draw the same grid: sharded networks need all of them.
            rows = self._config.validation.grid_identities
            shown = list(self._held_out(rows, rows, rank=0, world_size=1))
        if not batches:
            return {}, None
        figures = validate(stage, batches, world.device, self._consensus.gather, precision)
        with precision():
            return figures, self._grid(stage, shown[0][0], world.device, rows)

    def _held_out(
        self, identities: int, per_process: int, *, rank: int, world_size: int
    ) -> Iterator[tuple[Batch, tuple[str, ...]]]:
        return held_out_batches(
            self._dataset,
            self._config.data,
            identities,
            per_process,
            self._side,
            rank=rank,
            world_size=world_size,
        )
