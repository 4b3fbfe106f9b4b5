"""A part of `gpu_check.py`: step time, MFU and peak memory of a stage at the paper's size, with random weights.

The workflow is the paper's, with the micro-batch that it gives one of eight GPUs. The stages `flow`
and `control` take one micro-batch a step instead of eight, because a step would take a quarter of a minute.
"""

from __future__ import annotations

import argparse
import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from gpu_parts.result import Result, rounded, run

TINY = ("representation.size=tiny", "data.targets=2", "run.decode_threads=1")
TINY_FLUX = {
    "flow": {"side": 64, "text_tokens": 8},
    "control": {"side": 64, "text_tokens": 8, "layers": 2},
}
"""Keys of the decoders around a tiny FLUX, which has two double blocks for the ControlNet to copy."""
CPU_BACKEND = "aot_eager"
REPEATS, STEPS = 7, 3
STREAMED_STEPS = 8
SHARDS = "mfhq"
"""Directory within `--work` into which the part `stream` writes a dataset; later parts measure with it too."""
RESERVE_S = 20.0
"""Of the part's time, for what comes before and after the repeats."""


def main(options: argparse.Namespace, result: Result) -> None:
    """Measure a stage."""
    import torch
    from step_figures import configured, measure
    from train_step import parse

    from training.engine.devices import peak_flops
    from training.engine.processes import processes

    arguments = ["--stage", options.stage, "--size", "paper"]
    if options.device == "cpu":
        # Blocks are captured and differentiated as ever; to turn them into C++ would take minutes.
        torch.compile = partial(torch.compile, backend=CPU_BACKEND)
    shards = options.work / SHARDS
    streaming = (shards / "dataset.json").exists()
    if streaming:
        arguments += ["--root", str(shards)]
    arguments += ["--compile" if options.compile else "--no-compile"]
    if options.stage != "mtd":
        arguments += ["--accumulation", "1"]
    if options.tiny:
        arguments += ["--batch", "2", "--accumulation", "1", *tiny_overrides(options.stage, options.work)]
    chosen = parse(arguments)
    with processes(chosen.deterministic) as world:
        config = configured(chosen, world.world_size, per_process=int(chosen.batch))
        result.add(**_run_figures(config), compile_backend=_backend(options))
        steps = 1 if options.tiny or options.stage != "mtd" else STEPS
        repeats = 2 if options.tiny else REPEATS
        # Compiling takes most of the time, and how long is not known before.
        found = measure(
            config,
            world,
            streaming=streaming,
            steps=steps,
            repeats=repeats,
            within_s=max(0.0, result.left_s() - RESERVE_S) / 3,
            streamed_repeats=1,
            most_streamed=STREAMED_STEPS,
        )
        peak = peak_flops(found.device, config.run.precision)
        figures = {
            "flop_per_step": int(found.flop),
            "trained_parameters": found.parameters,
            "first_step_s": found.first_step_s,
            "step_s": found.step_s,
            "step_least_s": min(found.steps_s),
            "step_most_s": max(found.steps_s),
            "forward_backward_s": statistics.median(found.backward_s),
            "optimiser_ema_s": statistics.median(found.optimiser_s),
            "repeats": len(found.steps_s),
            "targets_per_s": config.batch * config.data.targets / found.step_s,
            "achieved_tflop_per_s": found.flop_per_s / 1e12,
            "matrix_product_tflop_per_s": found.limit / 1e12,
            "share_of_matrix_product": found.flop_per_s / found.limit,
            "data_sheet_peak_tflop_per_s": None if peak is None else peak / 1e12,
            "mfu": None if peak is None else found.flop_per_s / peak,
            "peak_memory_gb": found.peak_bytes / 1e9,
            **_streamed_figures(found),
            "last_loss": found.loss,
            "skipped_steps": found.skipped,
        }
        if not math.isfinite(found.loss):
            figures["last_loss"] = str(found.loss)  # JSON has no such numbers
        result.add(**rounded(figures))
        if found.skipped or not math.isfinite(found.loss):
            raise RuntimeError(f"{found.skipped} steps were not finite; the last loss is {found.loss}")


def tiny_overrides(stage: str, work: Path) -> list[str]:
    """Overrides that make a paper's workflow small enough for a CPU."""
    if stage == "mtd":
        return list(TINY)
    from noise_flux import write_sizes

    keys = TINY_FLUX[stage] | {"base": write_sizes(work / "tiny-flux", tiny=True)}
    return [*TINY, *(f"decoders.{stage}.{key}={value}" for key, value in keys.items())]


def _backend(options: argparse.Namespace) -> str | None:
    """What blocks are compiled with."""
    if not options.compile:
        return None
    return CPU_BACKEND if options.device == "cpu" else "inductor"


def _streamed_figures(found: Any) -> dict[str, Any]:
    """Of steps on batches of the stream: they begin when all that was read ahead is used up."""
    if not found.streamed_s:
        return {"streamed_step_s": None, "data_wait_share": None}
    step_s, waited_s = found.streamed_s[0]
    return {"streamed_step_s": step_s, "data_wait_share": waited_s / step_s}


def _run_figures(config: Any) -> dict[str, Any]:
    """What is measured."""
    return {
        "model_size": config.representation.size,
        "strategy": config.run.strategy,
        "precision": config.run.precision,
        "compile": config.run.compile,
        "activation_checkpointing_share": float(config.run.activation_checkpointing),
        "deterministic": config.run.deterministic,
        "batch_identities": config.batch,
        "micro_batch_identities": config.run.per_process,
        "inputs_per_identity": config.data.most_inputs,
        "targets_per_identity": config.data.targets,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["mtd", "flow", "control"], required=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    run(main, parser)
