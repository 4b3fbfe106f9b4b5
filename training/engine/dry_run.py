"""`--dry-run`: prints the sizes of a run, takes two steps and validates once; writes nothing into the output."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from training.config import Config
from training.data.order import Share
from training.engine.collectives import Collectives
from training.engine.feed import Feed
from training.engine.learner import Learner
from training.engine.memory import BYTES, copies, held_bytes
from training.engine.meter import peak_memory
from training.engine.signals import StopRequest
from training.engine.validation import Validator
from training.errors import TrainingError
from training.model import meta_model

STEPS = 2
LEAST_SHOWN = 1000
"""Bytes: every model has some constants in buffers."""


def describe(
    config: Config, identities: int, collectives: Collectives, message: Callable[[str], None]
) -> None:
    """Print the sizes of a run; counted on shapes, so that it needs neither weights nor memory for them.

    Args:
        config: of the run.
        identities: that it trains on.
        collectives: of its ranks.
        message: prints on rank 0.

    Raises:
        RunEnded: the shapes of frozen networks cannot be read, or the run does not fit into memory.
    """
    with collectives.barrier():
        shapes = meta_model(config)
    world = collectives.world
    for line in _plan(config, shapes, identities, world.world_size):
        message(line)
    with collectives.barrier():
        held = sum(_by_strategy(config, shapes, world.world_size)[config.run.strategy].values())
        _check_room(held, world.device)


def take_steps(
    *,
    config: Config,
    learner: Learner,
    feed: Feed,
    validator: Validator,
    collectives: Collectives,
    stop: StopRequest,
    message: Callable[[str], None],
) -> None:
    """Take two steps and validate once; nothing is written into the run's output.

    Raises:
        RunEnded: a step or the validation fails.
    """
    world = collectives.world
    for step in range(min(STEPS, config.steps)):
        began_s = time.perf_counter()
        fed = feed.next(step, stop.asked())
        if fed.stop:
            message("dry run: stopped")
            return
        taken = learner.learn(step, fed.batches, fed.targets)
        loss, norm = taken.loss.item(), taken.gradient_norm.item()
        took_s = time.perf_counter() - began_s
        message(f"step {step + 1}: loss {loss:.4f}, gradient norm {norm:.3g}, {took_s:.2f} s")
    with learner.evaluating() as model:
        found = validator.validate(model, learner.parallel.precision)
    if found is not None and found.figures:
        losses = ", ".join(
            f"{name.removeprefix('val/')} {value:.4f}"
            for name, value in found.figures.items()
            if "loss" in name
        )
        message(f"validation: {losses}")
    where = "GPU" if world.device.type == "cuda" else "main"
    message(f"peak {where} memory of rank 0 in these steps: {_gigabytes(peak_memory(world.device))}")
    cached = f"; {config.run.cache.folder} keeps the samples that were read" if config.run.cache else ""
    message(f"dry run: nothing was written into {config.output}{cached}")


def _plan(config: Config, model: nn.Module, identities: int, world_size: int) -> Iterator[str]:
    run = config.run
    accumulation = Share(config.batch, run.per_process, 0, world_size).accumulation
    epoch = identities / config.batch
    many = "ranks" if world_size > 1 else "rank"
    yield (
        f"{world_size} {many}, {run.strategy}, {run.precision}, run.per_process={run.per_process}, "
        f"{accumulation} micro-batches of each rank a step: batch {config.batch}"
    )
    yield (
        f"{identities:,} training identities: {epoch:,.1f} steps an epoch, "
        f"{config.steps:,} steps are {config.steps / epoch:,.1f} epochs"
    )
    names = ", ".join(name for name, _ in config.decoders.chosen())
    yield f"parameters of {config.representation.kind} ({config.representation.size}) and {names}:"
    parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for name, count in _groups(parameters):
        yield f"  {name:<24} {count:>15,}"
    total = sum(parameter.numel() for parameter in parameters.values())
    yield f"  {'total':<24} {total:>15,}"
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    if frozen:
        yield f"  {'frozen':<24} {frozen:>15,}"
    yield "memory of each rank, without activations:"
    for strategy, sizes in _by_strategy(config, model, world_size).items():
        shown = {name: size for name, size in sizes.items() if size >= LEAST_SHOWN}
        listed = ", ".join(f"{name} {_gigabytes(size)}" for name, size in shown.items())
        chosen = " (chosen)" if strategy == run.strategy else ""
        yield f"  {strategy:<4} {_gigabytes(sum(sizes.values()))}: {listed}{chosen}"
    stored = sum(number for name, number in copies(config).items() if name != "gradients") * total * BYTES
    yield (
        f"checkpoints: {_gigabytes(stored)} each, copied to main memory first ({_gigabytes(stored / world_size)} "
        f"a rank), {config.checkpoints.keep + 1} at once at most; "
        f"{_gigabytes(_free(config.output))} are free on the disk of {config.output}"
    )


def _by_strategy(config: Config, model: nn.Module, world_size: int) -> dict[str, dict[str, float]]:
    """Bytes that a rank holds, by strategy and by what they are."""
    shards = {"ddp": 1, "fsdp": world_size}
    return {name: held_bytes(config, model, number) for name, number in shards.items()}


def _check_room(held: float, device: torch.device) -> None:
    """Steps that do not fit would also take the memory of other programs."""
    if device.type == "cuda":
        room, what = torch.cuda.get_device_properties(device).total_memory, "GPU"
    else:
        room, what = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "machine"
    if held > room:
        raise TrainingError(
            f"no step was taken: a rank needs {_gigabytes(held)} and this {what} has {_gigabytes(room)}. "
            "Use more ranks with run.strategy=fsdp, or a smaller representation.size"
        )


def _groups(parameters: dict[str, nn.Parameter]) -> Iterable[tuple[str, int]]:
    """Numbers of parameters by the first three parts of their names, in the order of the modules."""
    counts: dict[str, int] = {}
    for name, parameter in parameters.items():
        part = ".".join(name.split(".")[: 3 if name.startswith("decoders.") else 2])
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts.items()


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
