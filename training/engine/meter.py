"""How fast a run is and what holds it up: images a second, share of the peak (MFU), waiting for data, memory."""

from __future__ import annotations

import resource
import time

import torch

from training.config import Config
from training.data.stream import IdentityStream
from training.engine.consensus import Consensus
from training.engine.devices import peak_flops
from training.engine.flops import step_flops


class Meter:
    """Measures from one line of metrics to the next.

    Args:
        config: of the run.
        stream: says how long it was waited for.
        consensus: of the processes; only the first one counts FLOPs, which takes seconds.

    Raises:
        TrainingError: on the first process, FLUX's sizes are not to be had.
    """

    def __init__(self, config: Config, stream: IdentityStream, consensus: Consensus) -> None:
        world = consensus.world
        self._consensus = consensus
        self._images = config.batch * config.data.targets
        self._stream = stream
        self._device = world.device
        self._flops: float | None = None
        if world.leads and world.device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(world.device), config.run.precision)
            if peak is not None:
                self._flops = step_flops(config) / (peak * world.world_size)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Measure from here on: what has happened since the last figures is not counted."""
        self._step = step
        self._began_s = time.perf_counter()
        self._waited_s = self._stream.waited_s

    def figures(self, step: int) -> dict[str, float]:
        """The figures since the last ones; all processes must ask for them.

        The device must have come to the end of the step. The processes wait for each other, so the one that waits
        longest for its data holds up all of them; likewise the one with least memory left ends all of them.
        """
        steps = step - self._step
        took_s = time.perf_counter() - self._began_s
        own = self._stream.waited_s - self._waited_s, peak_memory(self._device)
        waited_s, peak = map(max, zip(*self._consensus.gather(own), strict=True))
        figures = {
            "speed/images_per_s": self._images * steps / took_s,
            "speed/data_wait": waited_s / took_s,
            "memory/peak_gb": peak / 1e9,
        }
        if self._flops is not None:
            figures["speed/mfu"] = self._flops * steps / took_s
        self.restart(step)
        return figures


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held at once, on its GPU or else in its main memory."""
    if device.type == "cuda":
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
