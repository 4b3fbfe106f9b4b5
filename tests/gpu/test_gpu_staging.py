"""Copies between host and device: batches of the stream, and the copy that a checkpoint is written from."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from shards.schema import Split
from training.config import Config
from training.data.dataset import open_dataset
from training.data.latents import LatentFiles
from training.data.needs import KeptLatents, Needs
from training.data.stream import IdentityStream
from training.engine.checkpoint import _STAGES_ONCE, Checkpoints, SavedState
from training.engine.collectives import Collectives
from training.engine.processes import World

ON_A_GPU = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
NUMBERS = 20_000_000
"""80 MB: a thread writes them for longer than the next step takes."""


def state(step: int) -> SavedState:
    return SavedState(
        step=step,
        config={"seed": 1},
        dataset_sha256="ab",
        frozen_digests={},
        damaged={},
        world_size=1,
        torch="2",
        code="0",
    )


def stream(root: Path, latents: Path | None = None) -> closing[IdentityStream]:
    tree = {
        "output": "unused",
        "data": {"root": str(root), "targets": 2},
        "representation": {"size": "tiny", "clip": "random"},
        "decoders": {"mtd": {}},
        "batch": 2,
        "run": {"per_process": 2, "decode_threads": 1, "prefetch": 1},
    }
    dataset = open_dataset(str(root), retry_s=1.0)
    needs = Needs(64, targets=True, masks=True)
    if latents is not None:
        kept = KeptLatents(str(latents), dataset.digest, "codec", 64, (4, 8, 8), torch.bfloat16)
        needs = Needs(64, masks=True, latents=kept)
        files = LatentFiles(needs, retry_s=1.0)
        for number, key in enumerate(dataset.keys(Split.TRAIN)):
            files.write(key, torch.full((8, *kept.shape), 0.5 + number, dtype=kept.dtype))
    return closing(IdentityStream(dataset, Config.model_validate(tree), needs, rank=0, world_size=1))


@pytest.mark.parametrize("with_latents", [False, True], ids=["pixels", "latents"])
def test_batches_of_the_stream_are_the_same_on_the_device(
    dataset: Path, world: World, tmp_path: Path, with_latents: bool
) -> None:
    with stream(dataset, tmp_path if with_latents else None) as batches:
        for _ in range(8):  # past the end of an epoch
            batch = next(batches)
            moved = batch.to(world.device)
            for field in fields(batch):
                here, there = getattr(batch, field.name), getattr(moved, field.name)
                if isinstance(here, torch.Tensor):
                    assert there.device == world.device
                    assert here.is_pinned() == (world.device.type == "cuda"), field.name
                    assert torch.equal(here, there.cpu()), field.name
            assert batch.images_BKSSC.any()
            assert (batch.latents_BNCHH is not None and batch.latents_BNCHH.all().item()) == with_latents


@ON_A_GPU
def test_the_host_does_not_wait_for_a_batch_to_be_copied(dataset: Path, world: World) -> None:
    with stream(dataset) as batches:
        batch = next(batches)
        batch.to(world.device)  # so that the next copy needs no new memory, for which the driver may wait
        torch.cuda._sleep(1_000_000_000)  # clock cycles: about half a second, in front of the copy
        queued = torch.cuda.Event()
        queued.record()
        batch.to(world.device)
        assert not queued.query()
        queued.synchronize()


def test_steps_after_a_save_do_not_reach_the_checkpoint(world: World, tmp_path: Path) -> None:
    weights = torch.zeros(NUMBERS, device=world.device)
    checkpoints = Checkpoints(tmp_path, 2, Collectives(world))
    checkpoints.save(state(1), {"weights": weights})
    weights.fill_(1)  # the next step of the optimiser, while a thread writes
    checkpoints.finish()
    checkpoints.save(state(2), {"weights": weights})
    weights.fill_(2)
    checkpoints.finish()
    for step, expected in ((1, 0), (2, 1)):
        loaded = torch.full_like(weights, 7)
        checkpoints.load(state(step), {"weights": loaded})
        assert loaded.unique().tolist() == [expected]
        assert loaded.device == world.device


@ON_A_GPU
def test_a_checkpoint_is_copied_into_page_locked_memory(world: World, tmp_path: Path) -> None:
    stager = Checkpoints(tmp_path, 2, Collectives(world))._stager
    copied = stager.stage({"weights": torch.full((NUMBERS,), 3.0, device=world.device)})["weights"]
    assert copied.is_pinned()
    assert copied.unique().tolist() == [3]


@ON_A_GPU
@pytest.mark.skipif(_STAGES_ONCE, reason="this version of torch frees the memory after each copy")
def test_the_next_checkpoint_takes_the_same_page_locked_memory(world: World, tmp_path: Path) -> None:
    weights = torch.zeros(NUMBERS, device=world.device)
    stager = Checkpoints(tmp_path, 2, Collectives(world))._stager
    place = stager.stage({"weights": weights})["weights"].data_ptr()
    weights.fill_(3)
    again = stager.stage({"weights": weights})["weights"]
    assert again.data_ptr() == place
    assert again.unique().tolist() == [3]
