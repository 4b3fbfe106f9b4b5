"""How long does a training step take, and how far is it from what the device can do?

    python benchmarks/train_step.py --size paper                       # on a GPU, random images
    python benchmarks/train_step.py --size paper --root s3://bucket/mfhq --batch auto
    python benchmarks/train_step.py --size tiny --root demo/mfhq       # on a processor
    python benchmarks/train_step.py --stage flow --size paper --text-tokens 64 --checkpointing

It is the trainer's own step (`training.engine.learner`) with random weights. In turn, `--repeats` times, so that a
noisy machine disturbs all alike, it measures: a large product of matrices, the practical limit of the device; the
step on a batch that is there already; its two parts; and, with `--root`, the step on what the trainer's stream
delivers, of which the time spent waiting for data is a share. Figures are medians over the repeats.

The FLOPs of a step are counted exactly (`training.engine.flops`). MFU is their share of the device's peak by its
data sheet, and is not printed where that is not known.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from noise_flux import noise_stage, write_sizes
from step_clock import Clock, noise

from settings.loading import load_workflow
from training.config import Config
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream
from training.engine.devices import peak_flops
from training.engine.flops import step_flops
from training.engine.learner import Learner
from training.engine.meter import peak_memory
from training.engine.processes import World, processes
from training.models.build import build_stage, images_side
from training.models.sizes import SIZES
from training.models.stage import Stage

WORKFLOWS = Path(__file__).parent.parent / "workflows"
USUAL_PROCESSES = 8
"""GPUs of a machine: on so many the workflows' batches are cut up, and so is a step here."""
WARM_UP = 3


def main() -> None:
    """Measure and print a table."""
    options = parse()
    with processes(options.deterministic) as world:
        if options.batch == "auto" and (world.device.type != "cuda" or world.world_size > 1):
            raise SystemExit("--batch auto fills the memory of one GPU, from one process; give a number")
        config = configured(options, world, per_process=1 if options.batch == "auto" else int(options.batch))
        if options.batch == "auto":
            config = configured(options, world, largest_batch(config, world))
        measure(config, world, options)


def measure(config: Config, world: World, options: argparse.Namespace) -> None:
    """Measure a configuration."""
    learner = Learner(built(config, world), config, world)
    parameters = sum(parameter.numel() for parameter in learner.parallel.parameters.values())
    accumulation = config.batch // (config.run.per_process * world.world_size)
    batches = [noise(config, seed) for seed in range(accumulation)]
    clock = Clock(config, world, learner, batches, config.batch * config.data.targets, options.steps, None)
    for _ in range(WARM_UP):
        clock.step()
    limits, steps, halves, streams = [], [], [], []
    with closing(open_stream(config, world)) if options.root else nullcontext() as clock.stream:
        for _ in range(options.repeats):
            limits.append(clock.limit())
            steps.append(clock.step())
            halves.append(clock.halves())
            if clock.stream is not None:
                streams.append(clock.streamed())
    if not world.leads:
        return
    device = device_name(world.device)
    flops = step_flops(config) / world.world_size
    step_s, limit = statistics.median(steps), statistics.median(limits)
    peak = peak_flops(device, config.run.precision)
    run = config.run
    checkpointing = f"activations of {float(run.activation_checkpointing):.0%} of the blocks computed twice"
    rows = [
        ("device", f"{device}, {world.world_size} process(es), torch {torch.__version__}"),
        ("model", f"{config.model.size} {config.stage}, {parameters / 1e6:,.1f} M parameters"),
        ("run", f"{run.strategy}, {run.precision}, compile {run.compile}, {checkpointing}"),
        (
            "batch",
            f"{config.batch}: {accumulation} micro-batch(es) of {run.per_process} identities each process",
        ),
        ("images of an identity", f"{config.data.most_inputs} inputs, {config.data.targets} targets"),
        ("FLOPs of a step, each process", f"{flops / 1e12:,.4f} TFLOP (exact)"),
        ("step", f"{milliseconds(steps)}   without waiting for data"),
        ("  forward and backward", milliseconds([both[0] for both in halves])),
        ("  optimiser and average", milliseconds([both[1] for both in halves])),
        ("images/s (targets)", f"{config.batch * config.data.targets / step_s:10.1f}"),
        ("peak memory of process 0", f"{peak_memory(world.device) / 1e9:10.2f} GB"),
        ("FLOP/s in a step", f"{flops / step_s / 1e12:10.3f} T"),
        ("FLOP/s of a large matrix product", f"{limit / 1e12:10.3f} T   the practical limit, measured"),
        ("share of the practical limit", f"{flops / step_s / limit:10.1%}"),
        ("MFU", mfu(flops / step_s, peak, device, run.precision)),
    ]
    if streams:
        seconds, waited = ([pair[index] for pair in streams] for index in range(2))
        share = statistics.median(waits / took for took, waits in streams)
        rows += [
            ("step with the stream", f"{milliseconds(seconds)}   from {options.root}"),
            ("  steps timed, each time", f"{clock.streamed_steps:10}   after using up what was read ahead"),
            ("  waiting for data", milliseconds(waited)),
            ("  share", f"{share:10.2%}"),
            ("  MFU", mfu(flops / statistics.median(seconds), peak, device, run.precision)),
        ]
    else:
        rows.append(("waiting for data", "not measured: give --root to read a data set"))
    for name, value in rows:
        print(f"{name:<34} {value}")


def mfu(achieved: float, peak: float | None, device: str, precision: str) -> str:
    """The share of the peak, or why there is none."""
    if peak is None:
        return f"not printed: the peak of {device!r} in {precision} is not known (training/engine/devices.py)"
    return f"{achieved / peak:10.1%} of {peak / 1e12:,.1f} TFLOP/s"


def milliseconds(seconds: list[float]) -> str:
    """Median, least and most."""
    least, middle, most = (
        figure * 1e3 for figure in (min(seconds), statistics.median(seconds), max(seconds))
    )
    return f"{middle:10.2f} ms ({least:.2f} to {most:.2f})"


def configured(options: argparse.Namespace, world: World, per_process: int) -> Config:
    """The workflow of a size, as the options and the number of processes change it."""
    workflow = WORKFLOWS / f"train_{options.stage}_{options.size}.yaml"
    if not workflow.exists():
        raise SystemExit(f"there is no {workflow.name}")
    places = [f"data.root={options.root or 'none'}", f"output={tempfile.gettempdir()}", "model.clip=random"]
    if options.stage == "flow":
        places.append("flow.encoder=null")
        if options.size == "paper":
            places.append(f"flow.base={write_sizes(Path(tempfile.gettempdir()) / 'flux-sizes')}")
        if options.text_tokens:
            places.append(f"flow.text_tokens={options.text_tokens}")
    usual = load_workflow(workflow, places, Config)
    per_process = per_process or usual.run.per_process
    accumulation = options.accumulation or max(1, usual.batch // (USUAL_PROCESSES * per_process))
    # fsdp on one process shares nothing out and gathers all the same.
    alone = "ddp" if world.world_size == 1 else usual.run.strategy
    changes = {
        "batch": per_process * accumulation * world.world_size,
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
    return load_workflow(workflow, [*places, *overrides], Config)


def built(config: Config, world: World) -> Stage:
    """The stage with random weights; FLUX at its full size, which has no other, is made on the device."""
    if config.flow is not None and config.flow.base is not None:
        return noise_stage(config, world.device)
    return build_stage(config)


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
    side = images_side(config)
    return IdentityStream(dataset, config, side, rank=world.rank, world_size=world.world_size, start_step=0)


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


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=["mtd", "flow"], default="mtd", help="(mtd)")
    parser.add_argument(
        "--size", choices=sorted(SIZES), required=True, help="workflows/train_STAGE_SIZE.yaml"
    )
    parser.add_argument(
        "--text-tokens", type=int, help="length of the prompt that FLUX reads (the workflow's)"
    )
    parser.add_argument("--root", help="data set to read; without it, images are noise and nothing is read")
    parser.add_argument(
        "--batch", default="0", help="identities of a micro-batch, or auto: what fits (the workflow's)"
    )
    parser.add_argument("--accumulation", type=int, help="micro-batches of a step (as on eight processes)")
    parser.add_argument("--inputs", type=int, help="images that the encoder sees (the workflow's most)")
    parser.add_argument("--strategy", choices=["ddp", "fsdp"], help="(ddp on one process)")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="(the workflow's)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="(the workflow's)")
    parser.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--checkpointing",
        type=float,
        nargs="?",
        const=1.0,
        metavar="SHARE",
        help="compute activations twice: of all blocks, or of a share of them, 0 for none (the workflow's)",
    )
    parser.add_argument("--steps", type=int, default=5, help="steps of a measurement (5)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (5)")
    options = parser.parse_args()
    if options.batch != "auto" and not options.batch.isdigit():
        parser.error(f"--batch {options.batch}: expected a number or auto")
    return options


if __name__ == "__main__":
    main()
