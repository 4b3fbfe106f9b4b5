"""The timesteps of sampling, from diffusers' scheduler of FLUX.

The larger the image, the more steps FLUX.1-dev takes at high noise; its scheduler has the shift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.errors import TrainingError

# diffusers' defaults for missing keys of a scheduler's file (pipeline_flux.calculate_shift).
_SHIFT = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}


class Schedule:
    """Times from 1 down to 0.

    Args:
        folder: directory of FLUX with its scheduler; evenly spaced times when None.

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
                f"decoders.flow.base: {folder}/scheduler cannot be used: {error}. Download it again"
            ) from error

    def times(self, steps: int, tokens: int) -> tuple[float, ...]:
        """The time before each step, and 0.

        Args:
            steps: at least 1.
            tokens: number of tokens of an image.
        """
        config = {**_SHIFT, **self._scheduler.config}
        slope = (config["max_shift"] - config["base_shift"]) / (
            config["max_image_seq_len"] - config["base_image_seq_len"]
        )
        shift = config["base_shift"] + (tokens - config["base_image_seq_len"]) * slope
        self._scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
        return tuple(float(time) for time in self._scheduler.sigmas)
