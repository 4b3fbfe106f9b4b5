"""A run on this device that stops and goes on from its checkpoint is, bit for bit, the one that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from trainers import Run

from settings.loading import load_workflow
from training.config import Config
from training.train import run as train

ROOT = Path(__file__).parents[2]
DEVICES = [
    pytest.param(name, marks=getattr(pytest.mark, mark)) for name, mark in (("cpu", "slow"), ("cuda", "gpu"))
]
STEPS = 16
STOP_AFTER = 3


def configured(run: Run) -> Config:
    workflow, *overrides = run.arguments
    return load_workflow(Path(workflow), overrides, Config)


@contextmanager
def stopped_after(run: Run, step: int) -> Iterator[None]:
    """Sends SIGTERM to this process, as a scheduler does, once the run has done a step."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            if run.steps() >= step:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where the run ends sooner than the thread
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_that_stops_and_goes_on_gives_the_same_bits(
    device: torch.device, dataset: Path, tmp_path: Path, strategy: str
) -> None:
    overrides = (
        *(f"steps={STEPS}", "batch=4", "run.per_process=2", "run.precision=bf16", f"run.strategy={strategy}"),
        *("validation.every=12", "checkpoints.every=8"),
    )
    straight = Run(tmp_path / "straight", dataset, *overrides)
    train(configured(straight))
    assert len(straight.series("train/loss")) == STEPS

    stopped = Run(tmp_path / "stopped", dataset, *overrides)
    with stopped_after(stopped, STOP_AFTER):
        train(configured(stopped))
    stopped_at = stopped.steps()
    assert STOP_AFTER <= stopped_at < STEPS
    assert stopped.checkpoints()[-1] == f"step-{stopped_at:09}"
    train(configured(stopped))

    assert stopped.lines() == straight.lines()
    assert stopped.encoder() == straight.encoder()
    found, expected = stopped.tensors(), straight.tensors()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.gpu
def test_a_gpu_computes_nearly_what_a_cpu_does(dataset: Path, tmp_path: Path) -> None:
    """The first two steps of the same run, in fp32; later ones drift apart, as all training does."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    overrides = ("steps=2", "run.precision=fp32", "validation.every=2")
    on_gpu, on_cpu = (Run(tmp_path / name, dataset, *overrides) for name in ("gpu", "cpu"))
    train(configured(on_gpu))
    command = [sys.executable, str(ROOT / "training" / "train.py"), *on_cpu.arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert on_gpu.series("data/order") == on_cpu.series("data/order")
    (first, second), (expected_first, expected_second) = (
        run.series("train/loss") for run in (on_gpu, on_cpu)
    )
    assert first == pytest.approx(expected_first, rel=1e-4)
    assert second == pytest.approx(expected_second, rel=1e-3)
    assert on_gpu.series("train/grad_norm")[0] == pytest.approx(on_cpu.series("train/grad_norm")[0], rel=1e-3)
