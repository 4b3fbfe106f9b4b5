"""A flow step on kept latents does not make the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from training.config import Config
from training.data.batch import Batch
from training.engine.processes import World
from training.model import build_model

SCRATCH = {"layers": 1, "single_layers": 1, "heads": 2, "head_width": 16, "patch": 4}


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """On a GPU, the host must not wait for the device in the block."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_losses_of_kept_latents_wait_for_nothing(
    world: World, noise_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    tree = {
        "output": "unused",
        "data": {"root": "unused", "targets": 2},
        "representation": {"size": "tiny", "clip": "random"},
        "decoders": {"flow": {"scratch": SCRATCH, "side": 32, "latents": str(tmp_path)}},
        "run": {"precision": "fp32"},
    }
    model = build_model(Config.model_validate(tree), "a" * 64).to(world.device)
    kept = model.needs.latents
    assert kept is not None
    batch = replace(
        noise_batch(people=2, inputs=3, targets=2),
        latents_BNCHH=torch.randn(2, 2, *kept.shape, generator=torch.Generator().manual_seed(0)),
    ).to(world.device)
    tokens_BLD = model.encode(batch).detach()
    expected_BN = model.losses("flow", batch, tokens_BLD)  # libraries start in a first pass, and wait in it
    with waits_are_errors():
        losses_BN = model.losses("flow", batch, tokens_BLD)
    assert torch.equal(losses_BN, expected_BN)
    assert losses_BN.min() > 0
