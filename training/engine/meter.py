"""The speed of a run: targets a second, model FLOPs utilisation (MFU), waiting for data, peak memory."""

from __future__ import annotations

import resource
import time

import torch

from training.config import Config
from training.data.stream import IdentityStream
from training.engine.collectives import Collectives
from training.engine.devices import peak_flops
from training.engine.flops import step_flops


class Meter:
    """Measures from one line of metrics to the next.

    Args:
        config: of the run.
        stream: has counted the seconds that the trainer waited for it.
        collectives: of the ranks; only rank 0 counts FLOPs, which takes seconds.

    Raises:
        TrainingError: on rank 0, the shapes of frozen networks cannot be read.
    """

    def __init__(self, config: Config, stream: IdentityStream, collectives: Collectives) -> None:
        world = collectives.world
        self._collectives = collectives
        self._targets = config.batch * config.data.targets
        self._stream = stream
        self._device = world.device
        self._flops: float | None = None
        if world.is_main and world.device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(world.device), config.run.precision)
            if peak is not None:
                self._flops = step_flops(config) / (peak * world.world_size)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Measure from now on; the time since the last figures is not counted."""
        self._step = step
        self._began_s = time.perf_counter()
        self._waited_s = self._stream.waited_s

    def figures(self, step: int) -> dict[str, float]:
        """The figures since the last ones; a collective.

        The device must have finished the step. The figures are those of the slowest rank, which all others wait
        for, and of the one that uses the most memory.
        """
        steps = step - self._step
        took_s = time.perf_counter() - self._began_s
        own = self._stream.waited_s - self._waited_s, peak_memory(self._device)
        waited_s, peak = map(max, zip(*self._collectives.all_gather(own), strict=True))
        figures = {
            "speed/targets_per_s": self._targets * steps / took_s,
            "speed/data_wait": waited_s / took_s,
            "memory/peak_gb": peak / 1e9,
        }
        if self._flops is not None:
            figures["speed/mfu"] = self._flops * steps / took_s
        self.restart(step)
        return figures


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: of its GPU, or without one, main memory."""
    if device.type == "cuda":
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
