"""Small datasets for the tests of the container: real JPEG and PNG files of noise, real records."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from shards.atomic import write_parquet
from shards.landmarks import SHAPE, encode_landmarks
from shards.metadata import (
    DatasetMetadata,
    Provenance,
    ShardEntry,
    ShardLimits,
    TableEntry,
    decode_metadata,
    encode_metadata,
)
from shards.sample import Sample
from shards.schema import (
    IMAGE_SIDE,
    IMAGES_PER_IDENTITY,
    Attribute,
    FromSource,
    IdentityRecord,
    ImageRecord,
    Pose,
    Quality,
    Reason,
    Split,
    Status,
    TrackOutcome,
    VideoOutcome,
)
from shards.tables import IMAGES_SCHEMA, INDEX_SCHEMA, image_rows
from shards.writer import write_dataset

TEST_KEYS = ("clip-b_1",)
TRAIN_KEYS = ("clip-a_0", "clip-b_0", "clip-c_0", "clip-d_0")
PERSON = {"clip-b_0": "p-b0", "clip-b_1": "p-b1"}
LIMITS = ShardLimits(max_samples=2)
PROVENANCE = Provenance(
    config={"images": 8, "faces": {"min_px": 448.0, "crop_scale": 1.3}},
    config_digest="c0ffee",
    models={"detector": "ab" * 32},
    code_version="0.1.0",
    libraries={"numpy": np.__version__},
)


@cache
def jpeg(seed: int, size: tuple[int, int] = (IMAGE_SIDE, IMAGE_SIDE), mode: str = "RGB") -> bytes:
    channels = {"RGB": (3,), "L": ()}[mode]
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, *channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@cache
def mask(seed: int, size: tuple[int, int] = (IMAGE_SIDE, IMAGE_SIDE), mode: str = "L") -> bytes:
    face = np.zeros((size[1], size[0]), np.uint8)
    face[100 + seed % 50 : 400, 120:380] = 255
    return png(face, mode)


def png(pixels: NDArray[np.uint8], mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def image_record(frame: int, seed: int, jpeg_bytes: bytes, mask_bytes: bytes) -> ImageRecord:
    rng = np.random.default_rng(seed)
    yaw, pitch, roll = rng.uniform(-40, 40, 3).round(3).tolist()
    return ImageRecord(
        frame=frame,
        time_s=round(frame / 25, 6),
        box_px=(100.0, 90.0, 600.5, 680.25),
        face_px=543.5,
        crop_px=(20.0, 10.0, 600.0),
        pose=Pose(yaw=yaw, pitch=pitch, roll=roll),
        eyes_open=0.9,
        sharpness=123.4,
        identity_cosine=0.83,
        quality=Quality(metric="piqe", value=31.5, higher_is_better=False),
        sha256=hashlib.sha256(jpeg_bytes).hexdigest(),
        mask_sha256=hashlib.sha256(mask_bytes).hexdigest(),
    )


def from_source(video_id: str) -> dict[str, Any]:
    """What the source knows of a video: little of `clip-a`, every field of the others."""
    known = FromSource(source="clips", license="CC BY 4.0")
    if video_id != "clip-a":
        known = known.model_copy(
            update={
                "origin": f"https://example.org/{video_id}",
                "span_s": (1.5, 11.5),
                "annotated_box": (0.25, 0.1, 0.75, 1.02),
                "source_person": f"person of {video_id}",
                "attributes": [Attribute(name="camera", value="front"), Attribute(name="hat", value="no")],
            }
        )
    return {name: getattr(known, name) for name in FromSource.model_fields}


@cache
def sample(key: str, split: Split) -> Sample:
    """The sample `<video>_<track>` of a split."""
    video_id, track = key.rsplit("_", 1)
    first = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    seeds = range(first, first + IMAGES_PER_IDENTITY)
    images, masks = tuple(map(jpeg, seeds)), tuple(map(mask, seeds))
    landmarks = encode_landmarks(np.random.default_rng(first).uniform(100, 400, SHAPE).round(2))
    return Sample(
        record=IdentityRecord(
            key=key,
            split=split,
            person_id=PERSON.get(key, f"p-{video_id}"),
            video_id=video_id,
            **from_source(video_id),
            track=int(track),
            track_start_s=0.0,
            track_end_s=8.5,
            embedder="sface",
            embedding=[0.6, 0.8, 0.0],
            images=[
                image_record(frame, seed, image, face)
                for frame, seed, image, face in zip(range(10, 90, 10), seeds, images, masks, strict=True)
            ],
            landmarks_sha256=sha256(landmarks),
        ),
        images=images,
        masks=masks,
        landmarks=landmarks,
    )


def samples() -> list[Sample]:
    """Five identities in canonical order; with `LIMITS` they fill one test and two train shards."""
    return [sample(key, Split.TEST) for key in TEST_KEYS] + [sample(key, Split.TRAIN) for key in TRAIN_KEYS]


def accepted_video(video_id: str, records: Sequence[IdentityRecord]) -> VideoOutcome:
    tracks = [
        TrackOutcome(
            track=record.track,
            start_s=0.0,
            end_s=8.5,
            frames=80,
            usable_frames=60,
            crop_px=512.5,
            face_px=401.25,
            key=record.key,
        )
        for record in records
    ]
    dropped = TrackOutcome(
        track=tracks[-1].track + 1,
        start_s=9.0,
        end_s=9.5,
        frames=5,
        usable_frames=2,
        reason=Reason.TRACK_TOO_SHORT,
    )
    return VideoOutcome(
        video_id=video_id,
        uri=f"{video_id}.mp4",
        **{name: getattr(records[0], name) for name in FromSource.model_fields},
        bytes=123456,
        sha256="cd" * 32,
        status=Status.ACCEPTED,
        container="mp4",
        codec="h264",
        width=1280,
        height=720,
        fps=25.0,
        frames=250,
        duration_s=10.0,
        rotation_deg=0,
        color_transfer="bt709",
        analysed_frames=100,
        corrupt_frames=2,
        faces_seen=90,
        frame_reasons={Reason.FACE_TOO_SMALL: 4, Reason.BLURRED: 3},
        tracks=[*tracks, dropped],
        identities=len(tracks),
    )


def videos(of: Iterable[Sample] | None = None) -> list[VideoOutcome]:
    """The outcomes behind the samples, one rejected and one failed video."""
    by_video: dict[str, list[IdentityRecord]] = {}
    for record in sorted((item.record for item in of or samples()), key=lambda record: record.track):
        by_video.setdefault(record.video_id, []).append(record)
    return [
        *(accepted_video(video_id, records) for video_id, records in by_video.items()),
        VideoOutcome(
            video_id="clip-noface",
            source="clips",
            uri="noface.mp4",
            bytes=999,
            status=Status.REJECTED,
            reason=Reason.NO_FACE,
            detail="0 faces in 100 frames",
        ),
        VideoOutcome(
            video_id="clip-broken",
            source="clips",
            uri="sub/broken.mp4",
            bytes=12,
            status=Status.FAILED,
            reason=Reason.UNREADABLE,
            detail="moov atom not found",
        ),
    ]


def build(root: Path, limits: ShardLimits = LIMITS) -> DatasetMetadata:
    """Write the small dataset."""
    return write_dataset(root, samples(), videos(), PROVENANCE, limits)


def snapshot(root: Path) -> dict[str, bytes]:
    """Bytes of every file under `root`, hidden ones too, by relative path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@dataclass
class Shard:
    """A shard taken apart: names, bytes and raw headers can be changed before it is put together again."""

    path: Path
    members: list[tuple[str, bytes]]

    @classmethod
    def take_apart(cls, path: Path) -> Shard:
        with tarfile.open(path) as tar:
            return cls(path, [(info.name, _read(tar, info)) for info in tar])

    def index(self, name: str) -> int:
        return [member for member, _ in self.members].index(name)

    def put_together(self) -> None:
        with tarfile.open(self.path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in self.members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def reseal(root: Path) -> None:
    """Make index, image table and metadata agree with the shards, as a careful forger would."""
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("t*/mfhq-*.tar"))
    index, images, entries, records = [], [], [], []
    for name in names:
        with tarfile.open(root / name) as tar:
            infos = list(tar)
            found = []
            for key, group in groupby(infos, key=lambda info: info.name.split(".")[0]):
                members = list(group)
                text = next(_read(tar, info) for info in members if info.name.endswith(".json"))
                last = members[-1]
                end = last.offset_data + -(-last.size // 512) * 512
                found.append(
                    {
                        "key": key,
                        "split": name.split("/")[0],
                        "shard": name,
                        "offset": members[0].offset,
                        "length": end - members[0].offset,
                        "json_sha256": hashlib.sha256(text).hexdigest(),
                        "members": [
                            {"name": info.name, "offset": info.offset_data, "size": info.size}
                            for info in members
                        ],
                    }
                )
                records.append(IdentityRecord.model_validate_json(text, extra="ignore"))
                images += image_rows(records[-1])
        index += found
        data = (root / name).read_bytes()
        entries.append(
            ShardEntry(
                name=name,
                split=Split(name.split("/")[0]),
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                samples=len(found),
            )
        )
    write_parquet(root / "index-g0000.parquet", pa.Table.from_pylist(index, schema=INDEX_SCHEMA))
    write_parquet(root / "images-g0000.parquet", pa.Table.from_pylist(images, schema=IMAGES_SCHEMA))
    counts = {
        "identities": {
            split: sum(entry.samples for entry in entries if entry.split == split) for split in Split
        },
        "images": 8 * len(index),
        "persons": len({record.person_id for record in records}),
    }
    reseal_metadata(root, shards=entries, counts=counts)


def reseal_metadata(
    root: Path, shards: list[ShardEntry] | None = None, counts: dict[str, object] | None = None
) -> None:
    """Make the metadata agree with the three tables as they are, and with the given shards and counts."""
    metadata = decode_metadata((root / "dataset.json").read_bytes())
    tables = {}
    for role, entry in metadata.tables.items():
        name = entry.name
        data = (root / name).read_bytes()
        tables[role] = TableEntry(
            name=name,
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            rows=pq.ParquetFile(root / name).metadata.num_rows,
        )
    changed = metadata.model_copy(
        update={
            "tables": tables,
            "shards": shards or metadata.shards,
            "counts": metadata.counts.model_copy(update=counts or {}),
        }
    )
    (root / "dataset.json").write_bytes(encode_metadata(changed))


def change_rows(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a Parquet file, keeping its columns."""
    schema = pq.read_schema(path).remove_metadata()
    rows = pq.read_table(path).to_pylist()
    change(rows)
    write_parquet(path, pa.Table.from_pylist(rows, schema=schema))


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()
