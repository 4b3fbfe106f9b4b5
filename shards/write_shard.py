"""Writes one shard and the rows of the tables that describe it: the unit of work that may run anywhere.

A part of a dataset is the shard's entry in dataset.json with its rows of the index and the images table.
`shards.assemble` makes the tables from the parts of all shards, in their order. A part that is kept as a file lets
an interrupted build continue with the shards that it has written:

    <any name>.parquet    one row: `entry` (JSON of the entry), `index` and `images` (Arrow IPC streams)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from shards.atomic import open_atomic, write_parquet
from shards.layout import IMAGES, INDEX
from shards.metadata import ShardEntry
from shards.record_checks import validate_record, validate_sample
from shards.sample import Sample
from shards.schema import FORMAT_VERSION, IdentityRecord, VideoOutcome
from shards.shard_file import ShardFile
from shards.shard_tables import stream_of, table_of
from shards.tables import SCHEMAS, Row, image_rows
from shards.tar import BLOCK, padded
from storage.errors import is_of_storage
from storage.heartbeat import beat
from storage.path import AnyPath

_PART = pa.schema(
    [
        pa.field("entry", pa.string(), nullable=False),
        pa.field("index", pa.binary(), nullable=False),
        pa.field("images", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class EncodedSample:
    """A sample that is checked, as its shard holds it.

    Attributes:
        record: the JSON member.
        members: field and bytes of each member, in their order.
    """

    record: IdentityRecord
    members: list[tuple[str, bytes]]

    @property
    def length(self) -> int:
        """Bytes in the tar, headers and padding included."""
        return sum(member_length(len(data)) for _, data in self.members)


@dataclass(frozen=True, eq=False)
class ShardPart:
    """A shard that is written.

    Attributes:
        entry: of dataset.json.
        index: its rows of the index.
        images: its rows of the images table.
    """

    entry: ShardEntry
    index: pa.Table
    images: pa.Table


def member_length(size: int) -> int:
    """Bytes in the tar of a member with `size` bytes of data."""
    return BLOCK + padded(size)


def encode_sample(sample: Sample) -> EncodedSample:
    """A sample as its shard holds it.

    Raises:
        ValueError: the record holds NaN or an infinity.
    """
    return EncodedSample(sample.record, list(sample.members()))


def check_format_version(record: IdentityRecord) -> None:
    """Check that a record is of the version that is written.

    Raises:
        ValueError: it is of another one.
    """
    if record.format_version != FORMAT_VERSION:
        raise ValueError(f"sample {record.key}: format version {record.format_version}, not {FORMAT_VERSION}")


def check_record(record: IdentityRecord, video: VideoOutcome | None) -> None:
    """Check a record against the outcome of its video; `Sample.check` checks the files against the record.

    Raises:
        ValueError: the record contradicts its video, itself or the format.
    """
    check_format_version(record)
    if video is None:
        raise ValueError(f"sample {record.key}: its video {record.video_id} has no outcome")
    if errors := validate_record(record) + validate_sample(record, video):
        raise ValueError(f"sample {record.key}: {'; '.join(errors)}")


def write_shard(
    root: AnyPath,
    name: str,
    samples: Iterable[EncodedSample],
    *,
    written: Callable[[], None] = lambda: None,
    before_commit: Callable[[int], None] = lambda _: None,
) -> ShardPart:
    """Write a shard; it appears under its name whole, or not at all.

    Args:
        root: of the dataset.
        name: of the shard.
        samples: sorted by key; taken one by one.
        written: called after each sample.
        before_commit: called with the bytes of the shard before it gets its name; what it raises leaves no shard.

    Raises:
        OutOfSpace: the disk or the quota is full.
        StorageError: the object store does not take it.
    """
    index: list[Row] = []
    images: list[Row] = []
    with open_atomic(root / name) as file:
        tar = ShardFile(file, name)
        for sample in samples:
            index.append(tar.add(sample.record.key, sample.members))
            images += image_rows(sample.record)
            written()
        entry = tar.end()
        before_commit(entry.bytes)
        beat(entry.bytes)  # they reach the disk or the object store when the block ends
    return ShardPart(
        entry,
        pa.Table.from_pylist(index, SCHEMAS[INDEX]),
        pa.Table.from_pylist(images, SCHEMAS[IMAGES]),
    )


def write_part(path: AnyPath, part: ShardPart) -> None:
    """Keep a part as a file.

    Raises:
        OutOfSpace: the disk or the quota is full.
        StorageError: the object store does not take it.
    """
    row = {
        "entry": [part.entry.model_dump_json()],
        "index": [stream_of(part.index)],
        "images": [stream_of(part.images)],
    }
    write_parquet(path, pa.table(row, schema=_PART))


def read_part(path: AnyPath) -> ShardPart:
    """A part that was kept.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        (row,) = table.to_pylist()
        return ShardPart(
            ShardEntry.model_validate_json(row["entry"]),
            _table(row["index"], SCHEMAS[INDEX]),
            _table(row["images"], SCHEMAS[IMAGES]),
        )
    except (pa.ArrowException, ValidationError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no part of a dataset: {error}") from error
    except OSError as error:
        # Without a number it is Arrow's, about the content.
        if error.errno is not None or is_of_storage(error):
            raise
        raise ValueError(f"{path} is no part of a dataset: {error}") from error


def is_written(root: AnyPath, entry: ShardEntry) -> bool:
    """Whether the shard of an entry is there with the bytes that the entry has the digest of; reads all of it.

    Raises:
        StorageError: the object store cannot be read.
    """
    path = root / entry.name
    try:
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(2**22):
                beat()
                digest.update(block)
                size += len(block)
                if size > entry.bytes:
                    return False
    except OSError as error:
        if is_of_storage(error):
            raise
        return False
    return (digest.hexdigest(), size) == (entry.sha256, entry.bytes)


def _table(data: bytes, schema: pa.Schema) -> pa.Table:
    table = table_of(data)
    if not table.schema.equals(schema):
        raise ValueError("its rows have other columns than the tables")
    return table
