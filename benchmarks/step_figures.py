"""What `train_step.py` measures of a training step, as numbers: all that it needs of the trainer is here."""

from __future__ import annotations

import argparse
import gc
import math
import platform
import statistics
import tempfile
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from noise_flux import noise_model, write_sizes
from step_clock import Clock, noise

from settings.loading import load_workflow
from training.config import Config
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream
from training.engine.flops import step_flops
from training.engine.learner import Learner
from training.engine.meter import peak_memory
from training.engine.processes import World
from training.model import IdentityModel, build_model, meta_model

WORKFLOWS = Path(__file__).parent.parent / "workflows"
USUAL_PROCESSES = 8
"""GPUs of a machine, over which the workflows' batches are split; a step here is the share of one."""
WARM_UP = 2
"""Measurements after the first step that are not counted."""
LEAST_REPEATS = 2


@dataclass(frozen=True)
class Figures:
    """What was measured of a configuration; lists hold one figure for each repeat."""

    device: str
    parameters: int
    """That are trained."""
    accumulation: int
    """Micro-batches of a step."""
    flop: float
    """FLOPs of a step of one process, counted exactly."""
    first_step_s: float
    """Of the first step, in which blocks are compiled and memory is taken."""
    steps_s: list[float]
    """Of a step on batches that are in memory."""
    backward_s: list[float]
    """Of its forward and backward pass."""
    optimiser_s: list[float]
    """Of optimiser and EMA."""
    limits: list[float]
    """FLOP/s of a large product of matrices."""
    peak_bytes: int
    """Peak memory of this process."""
    skipped: int
    """Steps whose loss or gradient was not finite."""
    loss: float
    """Of the last step."""
    streamed_s: list[tuple[float, float]]
    """Of a step on batches of the stream, and how much of that is waiting for data."""
    streamed_steps: int
    """Steps that each of those figures is a mean over."""

    @property
    def step_s(self) -> float:
        """Median."""
        return statistics.median(self.steps_s)

    @property
    def flop_per_s(self) -> float:
        """In a step."""
        return self.flop / self.step_s

    @property
    def limit(self) -> float:
        """FLOP/s of a large product of matrices, median."""
        return statistics.median(self.limits)


def measure(
    config: Config,
    world: World,
    *,
    streaming: bool = False,
    steps: int = 5,
    repeats: int = 5,
    within_s: float = math.inf,
    streamed_repeats: int | None = None,
    most_streamed: int | None = None,
) -> Figures:
    """Measure a configuration.

    Args:
        config: of the run.
        world: its processes.
        streaming: measure steps on batches of `data.root` too.
        steps: that a figure is a mean over.
        repeats: figures of each kind, at most.
        within_s: seconds after which no further repeat begins, except the first two.
        streamed_repeats: repeats with the stream, where they are fewer.
        most_streamed: steps that the stream is timed over, at most.
    """
    learner = Learner(built(config, world), config, world)
    parameters = sum(parameter.numel() for parameter in learner.parallel.parameters.values())
    accumulation = config.batch // (config.run.per_process * world.world_size)
    batches = [noise(config, seed) for seed in range(accumulation)]
    targets = config.batch * config.data.targets
    clock = Clock(config, world, learner, batches, targets, steps, None, most_streamed)
    first_step_s = clock.first()
    for _ in range(WARM_UP):
        clock.step()
    limits, steps_s, halves, streamed = [], [], [], []
    began_s = time.perf_counter()
    with closing(open_stream(config, world)) if streaming else nullcontext() as clock.stream:
        for number in range(repeats):
            if number >= LEAST_REPEATS and time.perf_counter() - began_s > within_s:
                break
            limits.append(clock.limit())
            steps_s.append(clock.step())
            halves.append(clock.halves())
            if clock.stream is not None and (streamed_repeats is None or number < streamed_repeats):
                streamed.append(clock.streamed())
        streamed_steps = clock.streamed_steps
    return Figures(
        device=device_name(world.device),
        parameters=parameters,
        accumulation=accumulation,
        flop=step_flops(config) / world.world_size,
        first_step_s=first_step_s,
        steps_s=steps_s,
        backward_s=[both[0] for both in halves],
        optimiser_s=[both[1] for both in halves],
        limits=limits,
        peak_bytes=peak_memory(world.device),
        skipped=int(learner.updates.skipped),
        loss=float(learner.parallel.weighted(clock.losses_R)) if clock.losses_R is not None else math.nan,
        streamed_s=streamed,
        streamed_steps=streamed_steps,
    )


def configured(options: argparse.Namespace, world_size: int, per_process: int) -> Config:
    """The workflow of a size, as the options and the number of processes change it."""
    workflow = WORKFLOWS / f"train_{options.stage}_{options.size}.yaml"
    if not workflow.exists():
        raise SystemExit(f"there is no {workflow.name}")
    given = [f"data.root={options.root or 'none'}", f"output={tempfile.gettempdir()}"]
    given.append("representation.clip=random")
    decoder = f"decoders.{options.stage}"
    if options.stage == "control":
        given.append(f"{decoder}.adapter=null")
    elif options.stage == "flow":
        given.append("representation.weights=null")
    if options.stage != "mtd":
        if options.size == "paper" and not any(
            text.startswith(f"{decoder}.base=") for text in options.overrides
        ):
            given.append(f"{decoder}.base={write_sizes(Path(tempfile.gettempdir()) / 'flux-sizes')}")
        if options.text_tokens:
            given.append(f"{decoder}.text_tokens={options.text_tokens}")
    given += options.overrides
    usual = load_workflow(workflow, given, Config)
    per_process = per_process or usual.run.per_process
    accumulation = options.accumulation or max(1, usual.batch // (USUAL_PROCESSES * per_process))
    # fsdp on one process shares nothing out and gathers all the same.
    alone = "ddp" if world_size == 1 else usual.run.strategy
    changes = {
        "batch": per_process * accumulation * world_size,
        "data.inputs": options.inputs or usual.data.most_inputs,
        "run.per_process": per_process,
        "run.strategy": options.strategy or alone,
        "run.precision": options.precision or usual.run.precision,
        "run.compile": usual.run.compile if options.compile is None else options.compile,
        "run.activation_checkpointing": (
            usual.run.activation_checkpointing if options.checkpointing is None else options.checkpointing
        ),
    }
    overrides = [f"{key}={str(value).lower()}" for key, value in changes.items()]
    config = load_workflow(workflow, [*given, *overrides], Config)
    # A workflow may not freeze random weights, so the weights that it names are taken away afterwards.
    representation = config.representation.model_copy(update={"weights": None})
    return config.model_copy(update={"representation": representation})


def built(config: Config, world: World) -> IdentityModel:
    """The model with random weights; FLUX at its full size is made on the device."""
    flow = config.decoders.control or config.decoders.flow
    if flow is not None and flow.base is not None:
        return noise_model(config, world.device)
    return build_model(config)


def largest_batch(config: Config, world: World) -> int:
    """The largest power of two of identities that a process can hold, found by doubling.

    Found without torch.compile, which would compile anew for every size and needs no more memory.
    """
    fitting, per_process = 0, 1
    eager = config.model_copy(update={"run": config.run.model_copy(update={"compile": False})})
    learner = Learner(built(eager, world), eager, world)
    while True:
        changed = eager.model_copy(
            update={"run": eager.run.model_copy(update={"per_process": per_process}), "batch": per_process}
        )
        try:
            learner.learn(0, [noise(changed, 0)], per_process * config.data.targets)
        except torch.OutOfMemoryError:
            break
        fitting, per_process = per_process, 2 * per_process
    del learner
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    if not fitting:
        raise SystemExit("not even one identity fits into the memory; try --checkpointing or --strategy fsdp")
    return fitting


def open_stream(config: Config, world: World) -> IdentityStream:
    """The trainer's stream of this process."""
    dataset = open_dataset(config.data.root, config.run.retry_s, None)
    needs = meta_model(config).needs
    return IdentityStream(dataset, config, needs, rank=world.rank, world_size=world.world_size, start_step=0)


def device_name(device: torch.device) -> str:
    """What the maker calls it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
