"""Small datasets, configurations and comparisons for the tests of the stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "shards"))

import shards_factory as factory

from shards.schema import Split
from shards.writer import write_dataset
from training.config import Config
from training.data.batch import Batch
from training.data.needs import Needs

MTD = Needs(64, targets=True, masks=True)
"""What MTD reads at the tiny size."""
TRAIN = [f"train-{number:02}_0" for number in range(12)]
TEST = [f"held-{number:02}_0" for number in range(5)]


def build(root: Path, train: Iterable[str] = TRAIN, test: Iterable[str] = TEST) -> Path:
    samples = [factory.sample(key, Split.TEST) for key in test]
    samples += [factory.sample(key, Split.TRAIN) for key in train]
    limits = factory.ShardLimits(max_samples=5)
    write_dataset(root, samples, factory.videos(samples), factory.PROVENANCE, limits)
    return root


def config(root: Path | str, *, batch: int = 4, inputs: int | tuple[int, int] = 3, **run: Any) -> Config:
    return Config.model_validate(
        {
            "output": "/nonexistent",
            "data": {"root": str(root), "inputs": inputs},
            "representation": {"size": "tiny"},
            "decoders": {"mtd": {}},
            "batch": batch,
            "run": {"per_process": 2, "decode_threads": 2, "prefetch": 2, **run},
        }
    )


def flip_byte(path: Path, offset: int) -> None:
    """Change one byte of a file, leaving its size as it is."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def assert_same(one: Batch, other: Batch) -> None:
    assert one.keys == other.keys
    for name, value in vars(one).items():
        expected = getattr(other, name)
        assert type(value) is type(expected), name
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, expected), name
