"""A part of `gpu_check.py`: does the stream keep up with a GPU?

It writes shards of photographs, measures how many images a second the trainer's stream delivers when nothing else
runs, and then starts a real run of the first stage on them (training/train.py, with the paper's workflow). Its
metrics.jsonl says how many images a second it takes and how long it waits for data. The run is killed after a few
dozen steps, before it would write a checkpoint of 23 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from gpu_parts.result import Result, rounded, run
from gpu_parts.running import ROOT
from gpu_parts.step import SHARDS, TINY

WORKFLOW = ROOT / "workflows" / "train_mtd_paper.yaml"
IDENTITIES, TINY_IDENTITIES = 512, 24
STEPS, TINY_STEPS = 48, 6
SETTLE = 2
"""Lines of metrics that are not counted: blocks are compiled, and the queue is full, in their steps."""
LOG_EVERY, TINY_LOG_EVERY = 6, 1
ALONE_S, TINY_ALONE_S = 6.0, 0.5
MICRO_BATCH, TINY_MICRO_BATCH = 16, 2
END_S = 10.0


def main(options: argparse.Namespace, result: Result) -> None:
    """Measure the stream alone, then a run on it."""
    root = options.work / SHARDS
    cores = len(os.sched_getaffinity(0))
    result.add(**rounded(_write_shards(root, TINY_IDENTITIES if options.tiny else IDENTITIES, cores)))
    micro_batch = TINY_MICRO_BATCH if options.tiny else MICRO_BATCH
    threads = min(8, cores)  # the workflow's, where there are as many cores
    overrides = [
        f"data.root={root}",
        "representation.clip=random",
        f"batch={2 * micro_batch}",
        f"run.per_process={micro_batch}",
        "run.strategy=ddp",
        f"run.log_every={TINY_LOG_EVERY if options.tiny else LOG_EVERY}",
        *((*TINY, "run.compile=false") if options.tiny else ()),
        f"run.decode_threads={threads}",
    ]
    alone_s = TINY_ALONE_S if options.tiny else ALONE_S
    for name, count in {"stream": threads, "stream_all_cores": cores}.items():
        found = stream_alone([*overrides, f"run.decode_threads={count}"], options.work, alone_s)
        result.add(**{f"{name}_targets_per_s": round(found, 1), f"{name}_decode_threads": count})
    steps = TINY_STEPS if options.tiny else STEPS
    lines = train(overrides, options.work / "run", steps, result)
    figures = run_figures(lines)
    figures["stream_over_run"] = result.figures["stream_targets_per_s"] / figures["run_targets_per_s"]
    result.add(**rounded(figures))
    if figures["run_skipped_steps"]:
        raise RuntimeError(f"{figures['run_skipped_steps']} steps of the run were not finite")


def _write_shards(root: Path, identities: int, cores: int) -> dict[str, Any]:
    from loader_data import make_mfhq

    began_s = time.perf_counter()
    with ProcessPoolExecutor(cores) as pool:
        make_mfhq(root, identities, pool)
    written = sum(path.stat().st_size for path in root.rglob("*.tar"))
    return {
        "identities": identities,
        "shards_mb": written / 1e6,
        "writing_shards_s": time.perf_counter() - began_s,
    }


def stream_alone(overrides: list[str], work: Path, seconds: float) -> float:
    """Targets a second that the trainer's stream delivers while nothing takes them to a device."""
    from settings.loading import load_workflow
    from training.config import Config
    from training.data.dataset import open_dataset
    from training.data.stream import IdentityStream
    from training.model import meta_model

    config = load_workflow(WORKFLOW, [*overrides, f"output={work / 'unused'}"], Config)
    dataset = open_dataset(config.data.root, config.run.retry_s, None)
    with closing(IdentityStream(dataset, config, meta_model(config).needs, rank=0, world_size=1)) as stream:
        for _ in range(config.run.prefetch + 1):
            next(stream)  # what was read while nothing was counted
        images, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < seconds:
            images += len(next(stream).keys) * config.data.targets
        return images / (time.perf_counter() - began_s)


def train(overrides: list[str], output: Path, steps: int, result: Result) -> list[dict[str, float]]:
    """The lines of metrics of a real run, which is killed after a number of steps or at the time limit.

    Raises:
        RuntimeError: the run ended before.
    """
    command = [sys.executable, "training/train.py", str(WORKFLOW), *overrides, f"output={output}"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        while True:
            time.sleep(0.1)
            lines = _lines(output / "metrics.jsonl")
            if lines and lines[-1]["step"] >= steps:
                return lines
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with exit code {process.returncode}; its log says why")
            if result.left_s() < END_S and len(lines) > SETTLE:
                return lines
    finally:
        process.kill()
        process.wait()


def _lines(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    # The last line may be half written.
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def run_figures(lines: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the lines of a run's metrics.

    Raises:
        ValueError: there are too few lines.
    """
    counted = lines[SETTLE:]
    if not counted:
        raise ValueError(f"the run wrote {len(lines)} lines of metrics, too few to measure anything")

    def median(name: str) -> float | None:
        values = [line[name] for line in counted if name in line]
        return statistics.median(values) if values else None

    targets_per_s, waiting = median("speed/targets_per_s") or 0.0, median("speed/data_wait") or 0.0
    return {
        "run_steps": int(lines[-1]["step"]),
        "run_targets_per_s": targets_per_s,
        "run_data_wait_share": waiting,
        "run_targets_per_s_without_waiting": targets_per_s / (1 - waiting),
        "run_mfu": median("speed/mfu"),
        "run_peak_memory_gb": median("memory/peak_gb"),
        "run_last_loss": lines[-1]["train/loss"],
        "run_skipped_steps": int(lines[-1]["train/skipped"]),
    }


if __name__ == "__main__":
    run(main, argparse.ArgumentParser(description=__doc__))
