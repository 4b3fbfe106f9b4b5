"""Validation while training: held-out identities, read by all processes together, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import Config
from training.data.dataset import StreamedDataset
from training.data.held_out import held_out_batches
from training.engine.consensus import Consensus
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

    def validate(
        self, stage: Any, precision: Callable[[], AbstractContextManager[object]]
    ) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """The figures and a grid of samples; neither when no identities are held out.

        Raises:
            RunEnded: held-out identities cannot be read on some process.
        """
        config, world = self._config, self._consensus.world
        with self._consensus.together():
            batches = list(
                held_out_batches(
                    self._dataset,
                    config.data,
                    config.validation.identities,
                    config.run.per_process,
                    self._side,
                    rank=world.rank,
                    world_size=world.world_size,
                )
            )
        if not batches:
            return {}, None
        return validate(stage, batches, world.device, self._consensus.gather, precision), None
