"""The times of a sample's steps, as diffusers' scheduler of FLUX sets them.

FLUX.1-dev spends more of its steps near the noise the larger the image is, and its scheduler knows by how much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.errors import TrainingError

# diffusers' own defaults of what a scheduler's file may leave out (pipeline_flux.calculate_shift).
_SHIFT = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}


class Schedule:
    """Times from 1 down to 0.

    Args:
        folder: of FLUX, whose scheduler is used; evenly spaced times when None.

    Raises:
        TrainingError: the scheduler cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        try:
            self._scheduler: Any = (
                FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
                if folder
                else FlowMatchEulerDiscreteScheduler()
            )
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(
                f"flow.base: {folder}/scheduler cannot be used: {error}; fetch it again"
            ) from error

    def times(self, steps: int, tokens: int) -> tuple[float, ...]:
        """The time before each step, and 0.

        Args:
            steps: 1 at least.
            tokens: of an image.
        """
        config = {**_SHIFT, **self._scheduler.config}
        slope = (config["max_shift"] - config["base_shift"]) / (
            config["max_image_seq_len"] - config["base_image_seq_len"]
        )
        shift = config["base_shift"] + (tokens - config["base_image_seq_len"]) * slope
        self._scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
        return tuple(float(time) for time in self._scheduler.sigmas)
