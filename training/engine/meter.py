"""How fast a run is and what holds it up: images a second, share of the peak (MFU), waiting for data, memory."""

from __future__ import annotations

import resource
import time

import torch

from training.config import Config
from training.data.stream import IdentityStream
from training.engine.devices import peak_flops
from training.engine.flops import step_flops
from training.engine.processes import World


class Meter:
    """Measures from one line of metrics to the next.

    Args:
        config: of the run.
        stream: says how long it was waited for.
        world: the processes; only the first one counts FLOPs, which takes seconds.
    """

    def __init__(self, config: Config, stream: IdentityStream, world: World) -> None:
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
        """The figures since the last ones. The device must have come to the end of the step."""
        steps = step - self._step
        took_s = time.perf_counter() - self._began_s
        figures = {
            "speed/images_per_s": self._images * steps / took_s,
            "speed/data_wait": (self._stream.waited_s - self._waited_s) / took_s,
            "memory/peak_gb": peak_memory(self._device) / 1e9,
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
