"""How long does a training step take, and how far is it from what the device can do?

    python benchmarks/train_step.py --size paper                       # on a GPU, random images
    python benchmarks/train_step.py --size paper --root s3://bucket/mfhq --batch auto
    python benchmarks/train_step.py --size tiny --root demo/mfhq       # on a processor
    python benchmarks/train_step.py --stage flow --size paper --text-tokens 64 --checkpointing
    python benchmarks/train_step.py --stage control --size paper

It is the trainer's own step (`training.engine.learner`) with random weights. In turn, `--repeats` times, so that a
noisy machine disturbs all alike, it measures: a large product of matrices, the practical limit of the device; the
step on a batch that is there already; its two parts; and, with `--root`, the step on what the trainer's stream
delivers, of which the time spent waiting for data is a share. Figures are medians over the repeats.

The FLOPs of a step are counted exactly (`training.engine.flops`). MFU is their share of the device's peak by its
data sheet, and is not printed where that is not known.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
from step_figures import Figures, configured, largest_batch, measure

from training.config import Config
from training.engine.devices import peak_flops
from training.engine.processes import World, processes
from training.models.sizes import SIZES


def main() -> None:
    """Measure and print a table."""
    options = parse()
    with processes(options.deterministic) as world:
        if options.batch == "auto" and (world.device.type != "cuda" or world.world_size > 1):
            raise SystemExit("--batch auto fills the memory of one GPU, from one process; give a number")
        config = configured(
            options, world.world_size, per_process=1 if options.batch == "auto" else int(options.batch)
        )
        if options.batch == "auto":
            config = configured(options, world.world_size, largest_batch(config, world))
        found = measure(
            config, world, streaming=bool(options.root), steps=options.steps, repeats=options.repeats
        )
        if world.is_main:
            show(found, config, world, options.root)


def show(found: Figures, config: Config, world: World, root: str | None) -> None:
    """Print the figures as a table."""
    run = config.run
    checkpointing = f"activations of {float(run.activation_checkpointing):.0%} of the blocks computed twice"
    peak = peak_flops(found.device, run.precision)
    decoders = ", ".join(name for name, _ in config.decoders.chosen())
    rows = [
        ("device", f"{found.device}, {world.world_size} rank(s), torch {torch.__version__}"),
        ("model", f"{config.representation.size} {decoders}, {found.parameters / 1e6:,.1f} M parameters"),
        ("run", f"{run.strategy}, {run.precision}, compile {run.compile}, {checkpointing}"),
        (
            "batch",
            f"{config.batch}: {found.accumulation} micro-batch(es) of {run.per_process} identities each process",
        ),
        ("images of an identity", f"{config.data.most_inputs} inputs, {config.data.targets} targets"),
        ("FLOPs of a step, each process", f"{found.flop / 1e12:,.4f} TFLOP (exact)"),
        ("first step", milliseconds([found.first_step_s])),
        ("step", f"{milliseconds(found.steps_s)}   without waiting for data"),
        ("  forward and backward", milliseconds(found.backward_s)),
        ("  optimiser and EMA", milliseconds(found.optimiser_s)),
        ("targets/s", f"{config.batch * config.data.targets / found.step_s:10.1f}"),
        ("peak memory of rank 0", f"{found.peak_bytes / 1e9:10.2f} GB"),
        ("FLOP/s in a step", f"{found.flop_per_s / 1e12:10.3f} T"),
        ("FLOP/s of a large matrix product", f"{found.limit / 1e12:10.3f} T   the practical limit, measured"),
        ("share of the practical limit", f"{found.flop_per_s / found.limit:10.1%}"),
        ("MFU", mfu(found.flop_per_s, peak, found.device, run.precision)),
    ]
    if found.streamed_s:
        seconds, waited = ([pair[index] for pair in found.streamed_s] for index in range(2))
        share = statistics.median(waits / took for took, waits in found.streamed_s)
        rows += [
            ("step with the stream", f"{milliseconds(seconds)}   from {root}"),
            ("  steps timed, each time", f"{found.streamed_steps:10}   after using up what was read ahead"),
            ("  waiting for data", milliseconds(waited)),
            ("  share", f"{share:10.2%}"),
            ("  MFU", mfu(found.flop / statistics.median(seconds), peak, found.device, run.precision)),
        ]
    else:
        rows.append(("waiting for data", "not measured: give --root to read a dataset"))
    if found.skipped:
        rows.append(("steps that are not finite", f"{found.skipped:10}   loss of the last step {found.loss}"))
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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or arguments like those of one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=["mtd", "flow", "control"], default="mtd", help="(mtd)")
    parser.add_argument(
        "--size", choices=sorted(SIZES), required=True, help="workflows/train_STAGE_SIZE.yaml"
    )
    parser.add_argument(
        "--text-tokens", type=int, help="length of the prompt that FLUX reads (the workflow's)"
    )
    parser.add_argument("--root", help="dataset to read; without it, images are noise and nothing is read")
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
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="config keys to override, such as mtd.mask_ratio=0.9",
    )
    options = parser.parse_args(arguments)
    if options.batch != "auto" and not options.batch.isdigit():
        parser.error(f"--batch {options.batch}: expected a number or auto")
    return options


if __name__ == "__main__":
    main()
