"""`--dry-run`: what a run will be, said before it begins, and two steps of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.config import Config
from training.data.order import Share
from training.engine.consensus import Consensus
from training.engine.feed import Feed
from training.engine.learner import Learner
from training.engine.meter import peak_memory
from training.engine.signals import StopRequest
from training.errors import TrainingError
from training.models.build import meta_stage

STEPS = 2
BYTES = 4
"""Of a number: weights, gradients, optimiser and average are float32."""


def announce(config: Config, identities: int, consensus: Consensus, say: Callable[[str], None]) -> None:
    """Say what a run will be; counted on shapes, so that it needs no weights, nor a device that holds them.

    Args:
        config: of the run.
        identities: that it trains on.
        consensus: of its processes.
        say: what the first process says.

    Raises:
        RunEnded: FLUX, whose sizes stand in its folder, is not to be had, or the run does not fit into memory.
    """
    with consensus.together():
        shapes: Any = meta_stage(config)
    weights, world = dict(shapes.named_parameters()), consensus.world
    for line in _plan(config, weights, identities, world.world_size):
        say(line)
    with consensus.together():
        held = sum(_held(config, weights, world.world_size)[config.run.strategy].values())
        _check_room(held, world.device)


def rehearse(
    *,
    config: Config,
    learner: Learner,
    feed: Feed,
    consensus: Consensus,
    stop: StopRequest,
    say: Callable[[str], None],
) -> None:
    """Take two steps; nothing is written into the run's output.

    Raises:
        RunEnded: the run could not begin so.
    """
    world = consensus.world
    for step in range(min(STEPS, config.steps)):
        began_s = time.perf_counter()
        fed = feed.next(step, stop.asked())
        if fed.stop:
            say("dry run: stopped")
            return
        taken = learner.learn(step, fed.batches, fed.parts)
        loss, norm = taken.loss.item(), taken.gradient_norm.item()
        took_s = time.perf_counter() - began_s
        say(f"step {step + 1}: loss {loss:.4f}, gradient norm {norm:.3g}, {took_s:.2f} s")
    where = "GPU" if world.device.type == "cuda" else "main"
    say(f"peak {where} memory of process 0 in these steps: {_gigabytes(peak_memory(world.device))}")
    cached = f"; {config.run.cache.folder} keeps the samples that were read" if config.run.cache else ""
    say(f"dry run: nothing was written into {config.output}{cached}")


def _plan(
    config: Config, weights: dict[str, nn.Parameter], identities: int, world_size: int
) -> Iterator[str]:
    run = config.run
    accumulation = Share(config.batch, run.per_process, 0, world_size).accumulation
    epoch = identities / config.batch
    many = "processes" if world_size > 1 else "process"
    yield (
        f"{world_size} {many}, {run.strategy}, {run.precision}, {run.per_process} identities each at once, "
        f"{accumulation} micro-batches a step: a batch of {config.batch}"
    )
    yield (
        f"{identities:,} training identities: {epoch:,.1f} steps an epoch, "
        f"{config.steps:,} steps are {config.steps / epoch:,.1f} epochs"
    )
    yield f"parameters of the {config.model.size} {config.stage} stage:"
    parameters = {name: weight for name, weight in weights.items() if weight.requires_grad}
    for name, count in _parts(parameters):
        yield f"  {name:<24} {count:>15,}"
    total = sum(parameter.numel() for parameter in parameters.values())
    yield f"  {'together':<24} {total:>15,}"
    frozen = sum(weight.numel() for weight in weights.values() if not weight.requires_grad)
    if frozen:
        yield f"  {'frozen, besides':<24} {frozen:>15,}"
    yield "memory of each process, without activations:"
    for strategy, sizes in _held(config, weights, world_size).items():
        listed = ", ".join(f"{name} {_gigabytes(size)}" for name, size in sizes.items())
        chosen = " (chosen)" if strategy == run.strategy else ""
        yield f"  {strategy:<4} {_gigabytes(sum(sizes.values()))}: {listed}{chosen}"
    stored = sum(number for name, number in _copies(config).items() if name != "gradients") * total * BYTES
    yield (
        f"checkpoints: {_gigabytes(stored)} each, copied to main memory first ({_gigabytes(stored / world_size)} "
        f"a process), {config.checkpoints.keep + 1} at once at most; "
        f"{_gigabytes(_free(config.output))} are free where {config.output} lies"
    )


def _copies(config: Config) -> dict[str, int]:
    """How often there are as many numbers as there are parameters."""
    average = {"average": 1} if config.optimiser.ema_decay else {}
    return {"weights": 1, "gradients": 1, "optimiser": 2} | average


def _held(config: Config, weights: dict[str, nn.Parameter], world_size: int) -> dict[str, dict[str, float]]:
    """Bytes that a process holds all the time, by strategy and by what they are."""
    total = sum(weight.numel() for weight in weights.values() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in weights.values() if not weight.requires_grad)
    # What is frozen runs in the precision of the run, and is kept in no other.
    frozen_bytes = frozen * (BYTES // 2 if config.run.precision == "bf16" else BYTES)
    held = {}
    for strategy, processes in (("ddp", 1), ("fsdp", world_size)):
        sizes = {name: number * total * BYTES / processes for name, number in _copies(config).items()}
        held[strategy] = sizes | ({"frozen weights": frozen_bytes / processes} if frozen else {})
    return held


def _check_room(held: float, device: torch.device) -> None:
    """Two steps of what cannot fit would take a machine's last memory, from other programs too."""
    if device.type == "cuda":
        room, what = torch.cuda.get_device_properties(device).total_memory, "GPU"
    else:
        room, what = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "machine"
    if held > room:
        raise TrainingError(
            f"no step was taken: a process needs {_gigabytes(held)} and this {what} has {_gigabytes(room)}. "
            "Use more processes with run.strategy=fsdp, or a smaller model.size"
        )


def _parts(parameters: dict[str, nn.Parameter]) -> Iterable[tuple[str, int]]:
    """Numbers of parameters by the first two parts of their names, in the order of the modules."""
    counts: dict[str, int] = {}
    for name, parameter in parameters.items():
        part = ".".join(name.split(".")[:2])
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts.items()


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
