"""What the GPU tests share: each runs on a GPU (marked `gpu`), and on a CPU too where that proves anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shards.schema import IMAGES_PER_IDENTITY
from training.data.batch import Batch
from training.engine.processes import World, processes

TESTS = Path(__file__).parents[1]
# The tests of the trainer have what these need: batches of noise, datasets of noise, runs.
sys.path[:0] = [str(TESTS / "training" / "engine"), str(TESTS / "shards")]
# cuBLAS reads it when it starts, which the first test of the process makes it do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device that the trainer chooses on this machine; tests of the other one are skipped."""
    wanted: str = request.param
    if wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if wanted == "cpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, which the trainer takes; CUDA_VISIBLE_DEVICES= hides it")
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device("cpu")


@pytest.fixture
def world(device: torch.device) -> Iterator[World]:
    """One process, deterministic, with the process groups of a run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are so small that threads only wait for each other
    with processes(deterministic=True) as joined:
        assert joined.device == device
        yield joined
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven identities to train on, three held out; no test may change it."""
    from trainers import make_dataset

    return make_dataset(tmp_path_factory.mktemp("data") / "mfhq")


@pytest.fixture
def noise_batch() -> Callable[..., Batch]:
    """Makes batches of noise; the same arguments give the same batch."""
    return _noise_batch


def _noise_batch(*, people: int, inputs: int, targets: int, side: int = 64, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(people, IMAGES_PER_IDENTITY, side, side, dtype=torch.uint8)
    masks[..., side // 4 : -side // 4, side // 4 : -side // 4] = 255
    images = (people, IMAGES_PER_IDENTITY, side, side, 3)
    return Batch(
        images_BKSSC=torch.randint(0, 256, images, dtype=torch.uint8, generator=generator),
        masks_BKSS=masks,
        inputs_BM=torch.arange(inputs).repeat(people, 1),
        input_valid_BM=torch.ones(people, inputs, dtype=torch.bool),
        targets_BN=torch.arange(IMAGES_PER_IDENTITY - targets, IMAGES_PER_IDENTITY).repeat(people, 1),
        valid_B=torch.ones(people, dtype=torch.bool),
        seeds_B=torch.randint(-(2**63), 2**63 - 1, (people,), generator=generator),
        keys=tuple(f"noise-{number}" for number in range(people)),
    )
