"""The datasets of `loader.py`: the same files in each loader's format."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from faces.mask import encode_mask_png
from shards.canonical import sha256_hex
from shards.landmarks import SHAPE, encode_landmarks
from shards.metadata import Provenance, ShardEntry, ShardLimits
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import (
    IMAGE_SIDE,
    IMAGES_PER_IDENTITY,
    IdentityRecord,
    ImageRecord,
    Pose,
    Quality,
    Split,
    Status,
    TrackOutcome,
    VideoOutcome,
)
from shards.writer import write_dataset

SHARD_BYTES = 2**26
"""Of all formats: what litdata and mosaicml-streaming take by default."""
NUMBERS = range(IMAGES_PER_IDENTITY)
Files = dict[str, Any]


def make_mfhq(root: Path, identities: int, pool: Executor | None = None) -> None:
    """Write a dataset of photographs: crops of one portrait that differ in place, size and light.

    Args:
        root: where to.
        identities: how many.
        pool: of processes that encode the images; without it, this one does.
    """
    from skimage import data

    portrait = Image.fromarray(data.astronaut())
    keys = [f"photo-{number:05}_0" for number in range(identities)]
    spread = pool.map if pool is not None else map
    samples = list(spread(_sample, keys, [portrait] * identities, range(identities)))
    videos = [_video(sample.record) for sample in samples]
    provenance = Provenance(config={}, config_digest="benchmark", models={}, code_version="benchmark")
    limits = ShardLimits(max_bytes=SHARD_BYTES)
    write_dataset(root, samples, videos, provenance, limits)


def files_of(root: Path) -> Iterator[Files]:
    """Key, images and masks of each training sample."""
    dataset = Dataset.open(root)
    for sample in dataset.samples(Split.TRAIN):
        yield {"key": sample.record.key, "images": list(sample.images), "masks": list(sample.masks)}


def train_shards(root: Path) -> list[ShardEntry]:
    """The shards of the training split."""
    return [shard for shard in Dataset.open(root).metadata.shards if shard.split is Split.TRAIN]


def make_mds(root: Path, folder: Path) -> None:
    """The same samples in mosaicml-streaming's format."""
    from streaming import MDSWriter

    columns = {"key": "str"} | {f"{kind}{n}": "bytes" for kind in ("image", "mask") for n in NUMBERS}
    with MDSWriter(columns=columns, out=str(folder), size_limit=SHARD_BYTES) as writer:
        for files in files_of(root):
            writer.write(_flat(files))


def make_litdata(root: Path, folder: Path) -> None:
    """The same samples in litdata's format."""
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes=SHARD_BYTES)
    for number, files in enumerate(files_of(root)):
        cache[number] = _flat(files)
    cache.done()
    cache.merge()


def _flat(files: Files) -> dict[str, str | bytes]:
    images = {f"image{n}": files["images"][n] for n in NUMBERS}
    return {"key": files["key"], **images, **{f"mask{n}": files["masks"][n] for n in NUMBERS}}


def _sample(key: str, portrait: Image.Image, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    images = tuple(_photograph(portrait, rng) for _ in range(IMAGES_PER_IDENTITY))
    masks = tuple(_mask(rng) for _ in range(IMAGES_PER_IDENTITY))
    landmarks = encode_landmarks(rng.uniform(100, 400, SHAPE))
    records = [
        _image_record(number, image, mask)
        for number, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    record = IdentityRecord(
        key=key,
        split=Split.TRAIN,
        person_id=key,
        video_id=key.removesuffix("_0"),
        source="benchmark",
        track=0,
        track_start_s=0.0,
        track_end_s=8.0,
        images=records,
        landmarks_sha256=sha256_hex(landmarks),
    )
    return Sample(record, images, masks, landmarks)


def _photograph(portrait: Image.Image, rng: np.random.Generator) -> bytes:
    side = int(rng.integers(200, 330))
    x, y = rng.integers(0, portrait.width - side, 2)
    crop = portrait.crop((x, y, x + side, y + side)).resize(
        (IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC
    )
    lit = np.clip(np.asarray(crop, np.float32) * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(lit).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _mask(rng: np.random.Generator) -> bytes:
    mask = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    axes = (int(rng.integers(120, 170)), int(rng.integers(170, 220)))
    cv2.ellipse(mask, (256, 256), axes, float(rng.uniform(-30, 30)), 0, 360, 255, -1)
    return encode_mask_png(mask)


def _image_record(number: int, image: bytes, mask: bytes) -> ImageRecord:
    return ImageRecord(
        frame=number,
        time_s=float(number),
        box_px=(0.0, 0.0, 500.0, 500.0),
        face_px=500.0,
        crop_px=(0.0, 0.0, 600.0),
        pose=Pose(yaw=0.0, pitch=0.0, roll=0.0),
        eyes_open=1.0,
        sharpness=100.0,
        quality=Quality(metric="none", value=0.0, higher_is_better=True),
        sha256=sha256_hex(image),
        mask_sha256=sha256_hex(mask),
    )


def _video(record: IdentityRecord) -> VideoOutcome:
    track = TrackOutcome(track=0, start_s=0.0, end_s=8.0, frames=80, usable_frames=80, key=record.key)
    return VideoOutcome(
        video_id=record.video_id,
        source=record.source,
        uri=f"{record.video_id}.mp4",
        bytes=1,
        sha256="0" * 64,
        status=Status.ACCEPTED,
        tracks=[track],
        identities=1,
    )
