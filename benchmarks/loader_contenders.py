"""The loaders that `loader.py` compares: each yields the same decoded samples, in batches.

All of them decode with the trainer's own functions, into one array a batch, so what differs is how bytes and
arrays move. The others decode in the worker processes of a DataLoader, as their documentation has it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loader_data import NUMBERS, Files, files_of
from torch.utils.data import DataLoader

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Config
from training.data.dataset import open_dataset
from training.data.decode import BatchBuffer, decode_image, decoded_side
from training.data.draws import Draw
from training.data.needs import Needs
from training.data.stream import IdentityStream

Batch = tuple[Sequence[str], torch.Tensor, torch.Tensor]
Contender = Callable[[], Iterator[Batch]]
ALL = Draw(inputs=(0, 1, 2), targets=tuple(range(IMAGES_PER_IDENTITY)), seed=0)


@dataclass(frozen=True)
class Setting:
    """What all contenders share."""

    side: int
    """Of the model's input, in pixels."""
    batch: int
    """Identities of a batch."""
    cores: int
    """Threads or worker processes that decode."""
    epochs: int = 1
    """How often all identities come, without starting anew in between."""


@dataclass(frozen=True)
class _Pictures:
    images: Sequence[bytes]
    masks: Sequence[bytes]
    landmarks: bytes = b""
    """Not read here."""


def needs(side: int) -> Needs:
    """What MTD reads: targets and their masks."""
    return Needs(side, targets=True, masks=True)


def decode(samples: Sequence[Files], side: int) -> Batch:
    """A batch from the files of samples."""
    keys = [sample["key"] for sample in samples]
    buffer = BatchBuffer(keys, [ALL] * len(keys), needs(side))
    for row, sample in enumerate(samples):
        buffer.fill(row, _Pictures(sample["images"], sample["masks"]))
    batch = buffer.batch()
    return batch.keys, batch.images_BKSSC, batch.masks_BKSS


def raw(root: Path, setting: Setting) -> Contender:
    """The limit: images and masks decoded from memory, by threads."""
    samples = list(files_of(root))

    def run() -> Iterator[Batch]:
        with ThreadPoolExecutor(setting.cores) as pool:
            yield from pool.map(partial(decode, side=setting.side), _parts(samples, setting))

    return run


def raw_images(root: Path, setting: Setting) -> Contender:
    """The limit of images alone: as `raw`, without the masks."""
    samples = list(files_of(root))

    def images(part: Sequence[Files]) -> Batch:
        keys = [sample["key"] for sample in part]
        images_BKSSC = torch.empty((len(part), len(NUMBERS), side, side, 3), dtype=torch.uint8)
        for sample, into_KSSC in zip(part, images_BKSSC.numpy(), strict=True):
            for number in NUMBERS:
                decode_image(sample["images"][number], into_KSSC[number])
        return keys, images_BKSSC, images_BKSSC

    side = decoded_side(setting.side)

    def run() -> Iterator[Batch]:
        with ThreadPoolExecutor(setting.cores) as pool:
            yield from pool.map(images, _parts(samples, setting))

    return run


def _parts(samples: list[Files], setting: Setting) -> list[list[Files]]:
    samples = samples * setting.epochs
    return [samples[first : first + setting.batch] for first in range(0, len(samples), setting.batch)]


def ours(root: str, setting: Setting) -> Contender:
    """The stream of the trainer, checks and all."""
    config = Config.model_validate(
        {
            "output": "unused",
            "data": {"root": root},
            "representation": {"size": "tiny"},
            "decoders": {"mtd": {}},
            "batch": setting.batch,
            "run": {"per_process": setting.batch, "decode_threads": setting.cores},
        }
    )

    def run() -> Iterator[Batch]:
        dataset = open_dataset(root, retry_s=60.0)
        with closing(IdentityStream(dataset, config, needs(setting.side), rank=0, world_size=1)) as stream:
            for _ in range(setting.epochs * stream.identities // setting.batch):
                batch = next(stream)
                yield batch.keys, batch.images_BKSSC, batch.masks_BKSS

    return run


def webdataset(urls: Sequence[str], setting: Setting) -> Contender:
    """Plain webdataset on our tars; from S3 through signed URLs and curl, because it has no S3 client."""
    import webdataset as wds

    def run() -> Iterator[Batch]:
        dataset = wds.WebDataset(
            list(urls) * setting.epochs, shardshuffle=len(urls), detshuffle=True, seed=0, empty_check=False
        )
        batches = (
            dataset.shuffle(100)
            .map(_from_tar)
            .batched(setting.batch, collation_fn=partial(decode, side=setting.side))
        )
        yield from DataLoader(batches, batch_size=None, num_workers=setting.cores)

    return run


def litdata(root: str, setting: Setting, cache: Path | None = None) -> Contender:
    """The library litdata on its own format; from S3 with an empty cache."""
    from litdata import StreamingDataLoader, StreamingDataset

    def run() -> Iterator[Batch]:
        dataset = StreamingDataset(
            root,
            cache_dir=_emptied(cache),
            shuffle=True,
            drop_last=False,
            storage_options=_storage_options(root),
        )
        loader = StreamingDataLoader(
            dataset,
            batch_size=setting.batch,
            num_workers=setting.cores,
            persistent_workers=True,
            collate_fn=partial(_from_flat, side=setting.side),
            worker_init_fn=_without_tls,
        )
        for _ in range(setting.epochs):
            yield from loader

    return run


def mosaic(root: str, setting: Setting, cache: Path | None = None) -> Contender:
    """mosaicml-streaming on its own format; from S3 with an empty cache."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    def run() -> Iterator[Batch]:
        clean_stale_shared_memory()
        remote, local = (root, _emptied(cache)) if cache else (None, root)
        dataset = StreamingDataset(
            remote=remote, local=local, shuffle=True, batch_size=setting.batch, num_canonical_nodes=1
        )
        loader = DataLoader(
            dataset,
            batch_size=setting.batch,
            num_workers=setting.cores,
            persistent_workers=True,
            collate_fn=partial(_from_flat, side=setting.side),
        )
        for _ in range(setting.epochs):
            yield from loader

    return run


def _from_tar(sample: dict[str, Any]) -> Files:
    return {
        "key": sample["__key__"],
        "images": [sample[f"{number}.jpg"] for number in NUMBERS],
        "masks": [sample[f"{number}.mask.png"] for number in NUMBERS],
    }


def _from_flat(samples: Sequence[dict[str, Any]], side: int) -> Batch:
    return decode(
        [
            {
                "key": sample["key"],
                "images": [sample[f"image{number}"] for number in NUMBERS],
                "masks": [sample[f"mask{number}"] for number in NUMBERS],
            }
            for sample in samples
        ],
        side,
    )


def _without_tls(_: int) -> None:
    """Let a worker of litdata read from a server without TLS, for which it has no setting."""
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # type: ignore[typeddict-unknown-key]


def _emptied(cache: Path | None) -> str | None:
    if cache is None:
        return None
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    return str(cache)


def _storage_options(root: str) -> dict[str, str] | None:
    if not root.startswith("s3://"):
        return None
    return {
        "endpoint_url": os.environ["AWS_ENDPOINT_URL"],
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "region_name": os.environ["AWS_REGION"],
    }
