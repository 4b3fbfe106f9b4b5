"""Synthetic datasets with any number of identities, for benchmarks and tests of the report.

The tables are of the real schemas and at full size. Shards contain only the samples that the report shows: the
other rows of the index point into a shard, but the report does not read there. Persons, sources, quality and poses
are random with a fixed seed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipeline.people import findings
from pipeline.people.findings import SHOWN_PAIRS, Pair, PeopleFindings
from pipeline.report import timings
from pipeline.report.build import FOLDER, TIMINGS
from pipeline.report.content import shown_keys
from pipeline.report.image_counts import count_images
from shards.assemble import table_entry
from shards.atomic import PARQUET_SETTINGS, open_atomic, write_bytes
from shards.landmarks import SHAPE, encode_landmarks
from shards.layout import DATASET_JSON, FIELDS, IMAGES, INDEX, VIDEOS, shard_name, table_name
from shards.metadata import (
    Counts,
    DatasetMetadata,
    Provenance,
    ShardEntry,
    ShardLimits,
    TableEntry,
    encode_metadata,
)
from shards.sample import Sample
from shards.schema import (
    FAILURES,
    IMAGE_SIDE,
    IMAGES_PER_IDENTITY,
    IdentityRecord,
    ImageRecord,
    Pose,
    Quality,
    Reason,
    Split,
    Status,
)
from shards.shard_file import ShardFile
from shards.streamed import StreamedDataset
from shards.tables import ROW_GROUP, SCHEMAS, VIDEOS_SCHEMA, Row, open_rows

SOURCES = ("vfhq", "celebv-hq", "celebv-text", "talkinghead-1kh", "hdtf")
METRIC = "topiq_nr-face"
TEST = 44
LARGEST_PERSON = 150
LOST_SHARE = 0.5
"""Videos without an identity, as a part of those with one."""
PICTURES = 64
STEPS = ("probe", "decode", "detect", "landmarks", "filter", "embed", "crop", "track", "select", "score")
PROVENANCE = Provenance(
    config={"selection": {"roll_weight": 0.5}}, config_digest="0" * 64, models={}, code_version="0"
)


class WideDataset:
    """The random choices behind a dataset of N identities."""

    def __init__(self, identities: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.count = identities
        self.rng = rng
        persons = np.repeat(
            np.arange(identities), np.minimum(rng.zipf(2.2, identities), LARGEST_PERSON).astype(int)
        )
        train = rng.permutation(persons[: max(0, identities - TEST)])
        # Held-out identities come first, and show other persons.
        self.person = np.concatenate([identities + np.arange(min(TEST, identities)), train])
        at_home = rng.random(identities) < 0.9
        anywhere = rng.integers(0, len(SOURCES), identities)
        self.source = np.where(at_home, self.person % len(SOURCES), anywhere)
        self.pictures = [_picture(number) for number in range(PICTURES)]

    def write(self, root: Path) -> DatasetMetadata:
        """Write the dataset, its timings and the findings of linking."""
        root.mkdir(parents=True, exist_ok=True)
        rows = {
            IMAGES: _write(root, IMAGES, self._image_tables()),
            INDEX: _write(root, INDEX, self._index_tables({})),
            VIDEOS: self._write_videos(root),
        }
        self._write_metadata(root, rows, [])
        timings.keep(root / FOLDER / TIMINGS, self._timings())
        found = self._findings()
        findings.write_findings(root / FOLDER / findings.FILE, found)
        shown = shown_keys(count_images(StreamedDataset.open(root), 0.5), found)
        numbers = sorted(int(key.removeprefix("id_")) for key in shown)
        shards, index_rows = self._write_shards(root, numbers)
        _write(root, INDEX, self._index_tables(index_rows))
        return self._write_metadata(root, rows, shards)

    def _split(self, number: int) -> Split:
        return Split.TEST if number < TEST else Split.TRAIN

    def _image_tables(self) -> Iterator[pa.Table]:
        per_table = ROW_GROUP // IMAGES_PER_IDENTITY
        for start in range(0, self.count, per_table):
            numbers = np.repeat(np.arange(start, min(start + per_table, self.count)), IMAGES_PER_IDENTITY)
            count, rng = len(numbers), self.rng
            digests = [rng.bytes(32).hex() for _ in range(count)]
            columns = {
                "key": [_key(n) for n in numbers.tolist()],
                "index": np.tile(np.arange(IMAGES_PER_IDENTITY), count // IMAGES_PER_IDENTITY).astype(
                    np.int8
                ),
                "split": [self._split(n).value for n in numbers.tolist()],
                "person_id": [f"person_{p:06d}" for p in self.person[numbers].tolist()],
                "video_id": [self._video_id(n) for n in numbers.tolist()],
                "source": [SOURCES[s] for s in self.source[numbers].tolist()],
                "license": pa.nulls(count, pa.string()),
                "track": np.zeros(count, np.int64),
                "frame": np.arange(count),
                "time_s": np.arange(count) / 25,
                "face_px": rng.normal(560, 90, count).clip(100),
                "crop_side_px": rng.normal(760, 120, count).clip(256),
                "yaw": rng.normal(0, 22, count),
                "pitch": rng.normal(-3, 8, count),
                "roll": rng.normal(0, 6, count),
                "eyes_open": rng.beta(8, 2, count),
                "sharpness": rng.gamma(4, 40, count),
                "identity_cosine": rng.beta(20, 3, count),
                "quality_metric": [METRIC] * count,
                "quality": rng.beta(9, 5, count),
                "quality_higher_is_better": [True] * count,
                "sha256": digests,
                "mask_sha256": digests[::-1],
            }
            yield pa.table(columns, schema=SCHEMAS[IMAGES])

    def _index_tables(self, real: dict[int, Row]) -> Iterator[pa.Table]:
        for start in range(0, self.count, ROW_GROUP):
            numbers = range(start, min(start + ROW_GROUP, self.count))
            yield pa.Table.from_pylist(
                [real.get(number) or self._index_row(number) for number in numbers], schema=SCHEMAS[INDEX]
            )

    def _index_row(self, number: int) -> Row:
        key = _key(number)
        return {
            "key": key,
            "split": self._split(number).value,
            "shard": shard_name(self._split(number), 0),
            "offset": 0,
            "length": 512,
            "json_sha256": "0" * 64,
            "members": [{"name": f"{key}.{field}", "offset": 0, "size": 0} for field in FIELDS],
        }

    def _write_videos(self, root: Path) -> int:
        reasons = _lost_reasons()
        lost = int(self.count * LOST_SHARE)
        accepted = sorted((self._video_id(number), number) for number in range(self.count))
        with open_rows(root / table_name(VIDEOS), VIDEOS_SCHEMA) as rows:
            for video_id, number in accepted:
                rows.add(_video_row(video_id, SOURCES[self.source[number]], key=_key(number)))
            for number in range(lost):  # "z" comes after every source, so ids stay sorted
                rows.add(_video_row(f"z/{number:07d}.mp4", "z", reason=reasons[number % len(reasons)]))
        return rows.rows

    def _video_id(self, number: int) -> str:
        return f"{SOURCES[self.source[number]]}/clips/of-a-long-name/{number:07d}.mp4"

    def _timings(self) -> Iterator[tuple[str, dict[str, float]]]:
        for number in range(self.count):
            spent = self.rng.gamma(2, 0.4, len(STEPS)).tolist()
            yield self._video_id(number), dict(zip(STEPS, spent, strict=True))

    def _findings(self) -> PeopleFindings:
        keys = [_key(number) for number in np.linspace(0, self.count - 1, 2 * SHOWN_PAIRS + 2).astype(int)]
        pairs = [Pair(first=a, second=b, cosine=0.0, least_cosine=0.5) for a, b in pairwise(keys)]
        return PeopleFindings(
            embedder="arcface_r50",
            link_cosine=0.5,
            same_origin_cosine=0.35,
            linked=[
                pair.model_copy(update={"cosine": 0.5 + n / 200})
                for n, pair in enumerate(pairs[:SHOWN_PAIRS])
            ],
            apart=[
                pair.model_copy(update={"cosine": 0.499 - n / 200})
                for n, pair in enumerate(pairs[SHOWN_PAIRS : 2 * SHOWN_PAIRS])
            ],
            rejected=[],
            notes=["vfhq: 3 groups hold more identities than the split has room for."],
        )

    def _write_shards(self, root: Path, numbers: list[int]) -> tuple[list[ShardEntry], dict[int, Row]]:
        shards, rows = [], {}
        for split in (Split.TEST, Split.TRAIN):
            name = shard_name(split, 0)
            with open_atomic(root / name) as file:
                tar = ShardFile(file, name)
                for number in numbers:
                    if self._split(number) is split:
                        sample = self._sample(number)
                        rows[number] = tar.add(sample.record.key, sample.members())
                shards.append(tar.end())
        return shards, rows

    def _sample(self, number: int) -> Sample:
        rng = np.random.default_rng(number)
        files = [self.pictures[(number * 5 + index) % PICTURES] for index in range(IMAGES_PER_IDENTITY)]
        landmarks = encode_landmarks(np.full(SHAPE, 200))
        record = IdentityRecord(
            key=_key(number),
            split=self._split(number),
            person_id=f"person_{self.person[number]:06d}",
            video_id=self._video_id(number),
            source=SOURCES[self.source[number]],
            track=0,
            track_start_s=0,
            track_end_s=4,
            images=[
                ImageRecord(
                    frame=10 * index,
                    time_s=0.4 * index,
                    box_px=(100, 100, 600, 700),
                    face_px=560,
                    crop_px=(50, 50, 760),
                    pose=Pose(yaw=float(rng.normal(0, 22)), pitch=float(rng.normal(-3, 8)), roll=0),
                    eyes_open=0.9,
                    sharpness=100,
                    quality=Quality(metric=METRIC, value=float(rng.beta(9, 5)), higher_is_better=True),
                    sha256=hashlib.sha256(jpeg).hexdigest(),
                    mask_sha256=hashlib.sha256(mask).hexdigest(),
                )
                for index, (jpeg, mask) in enumerate(files)
            ],
            landmarks_sha256=hashlib.sha256(landmarks).hexdigest(),
        )
        return Sample(record, tuple(jpeg for jpeg, _ in files), tuple(mask for _, mask in files), landmarks)

    def _write_metadata(self, root: Path, rows: dict[str, int], shards: list[ShardEntry]) -> DatasetMetadata:
        test = min(TEST, self.count)
        lost = rows[VIDEOS] - self.count
        failed = sum(1 for n in range(lost) if _lost_reasons()[n % len(_lost_reasons())] in FAILURES)
        metadata = DatasetMetadata(
            name="wide",
            limits=ShardLimits(),
            counts=Counts(
                videos={
                    Status.ACCEPTED: self.count,
                    Status.REJECTED: lost - failed,
                    Status.FAILED: failed,
                },
                identities={Split.TEST: test, Split.TRAIN: self.count - test},
                images=self.count * IMAGES_PER_IDENTITY,
                persons=len(np.unique(self.person)),
            ),
            shards=shards,
            tables={role: _entry(root, role, count) for role, count in rows.items()},
            provenance=PROVENANCE,
        )
        write_bytes(root / DATASET_JSON, encode_metadata(metadata))
        return metadata


def _entry(root: Path, role: str, rows: int) -> TableEntry:
    return table_entry(root, table_name(role), rows)


def _lost_reasons() -> list[Reason]:
    return [reason for reason in Reason if reason is not Reason.DUPLICATE_PERSON]


def _key(number: int) -> str:
    return f"id_{number:07d}"


def _write(root: Path, role: str, tables: Iterator[pa.Table]) -> int:
    rows = 0
    with (
        open_atomic(root / table_name(role)) as file,
        pq.ParquetWriter(file, SCHEMAS[role], **PARQUET_SETTINGS) as writer,
    ):
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def _video_row(video_id: str, source: str, *, key: str | None = None, reason: Reason | None = None) -> Row:
    failed = reason in FAILURES
    status = Status.ACCEPTED if key else Status.FAILED if failed else Status.REJECTED
    track: dict[str, Any] = {
        "track": 0,
        "start_s": 0.0,
        "end_s": 4.0,
        "frames": 60,
        "usable_frames": 58,
        "crop_px": 512.0,
        "face_px": 300.0,
        "key": key,
        "reason": None if key else reason,
        "detail": None,
    }
    empty: Row = dict.fromkeys(VIDEOS_SCHEMA.names)
    return empty | {
        "video_id": video_id,
        "source": source,
        "attributes": [],
        "uri": video_id,
        "bytes": 1_000_000,
        "status": status.value,
        "reason": None if reason is None else reason.value,
        "detail": None if reason is None else f"what was found in {video_id}: " + 10 * "a long text ",
        "width": 1280,
        "height": 720,
        "duration_s": 10.0,
        "analysed_frames": 60,
        "corrupt_frames": 0,
        "faces_seen": 0 if failed else 70,
        "frame_reasons": [] if failed else [("blurred", 12)],
        "tracks": [] if failed else [track],
        "identities": 1 if key else 0,
    }


def _picture(number: int) -> tuple[bytes, bytes]:
    """JPEG and mask of an ellipse in noise, which no JPEG makes small: pages are as large as they get."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    image, mask = Image.fromarray(pixels), Image.new("L", (IMAGE_SIDE, IMAGE_SIDE))
    box = (120 + number, 80, 360 + number, 420)
    ImageDraw.Draw(image).ellipse(box, fill=tuple(rng.integers(0, 256, 3).tolist()))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    files = io.BytesIO(), io.BytesIO()
    image.save(files[0], "JPEG", quality=90)
    mask.save(files[1], "PNG")
    return files[0].getvalue(), files[1].getvalue()
