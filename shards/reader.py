"""Reads a dataset from a directory: any sample by one range read, or all of them in order.

All file names come from dataset.json, so a reader stays with the generation that it opened. The index is data
from outside: a shard name or a range that contradicts the metadata is rejected before a file is opened, and every
sample is checked against its digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from shards.canonical import parse_json, sha256_hex
from shards.layout import (
    DATASET_JSON,
    FIELDS,
    IMAGE_FIELDS,
    IMAGES,
    INDEX,
    JSON_FIELD,
    LANDMARKS_FIELD,
    MASK_FIELDS,
    TOMBSTONES,
    VIDEOS,
)
from shards.metadata import DatasetError, DatasetMetadata, ShardEntry, brief, check_version, decode_metadata
from shards.sample import Sample, member_digests
from shards.schema import IdentityRecord, Split, VideoOutcome
from shards.tables import SCHEMAS, Row, rows_of, video_outcome
from storage.path import AnyPath, ObjectPath, read_range


@dataclass(frozen=True)
class SampleRange:
    """Position of a sample: `length` bytes at `offset` of a shard, and the positions of its members' data."""

    key: str
    split: Split
    shard: str
    offset: int
    length: int
    json_sha256: str
    members: dict[str, tuple[int, int]]
    """Field (`0.jpg`, …) -> offset in the shard and size of the data, in bytes."""


class Index:
    """The list of samples and their positions: the rows of the index, checked against the metadata."""

    def __init__(self, metadata: DatasetMetadata, table: pa.Table) -> None:
        self.table = table
        self._shards = {shard.name: shard for shard in metadata.shards}
        self._rows = {key: row for row, key in enumerate(table["key"].to_pylist())}

    def keys(self, split: Split | None = None) -> list[str]:
        """Keys in canonical order: sorted within a split, `test` before `train`."""
        if split is None:
            return list(self._rows)
        splits = self.table["split"].to_pylist()
        return [key for key, row in self._rows.items() if splits[row] == split]

    def locate(self, key: str) -> SampleRange:
        """Position of a sample.

        Raises:
            KeyError: there is no such sample.
            DatasetError: the index points anywhere but into a shard that the metadata lists.
        """
        if key not in self._rows:
            raise KeyError(f"no sample {key!r} in the dataset")
        return sample_range(self.table.slice(self._rows[key], 1).to_pylist()[0], self._shards)


class Dataset:
    """A finished dataset in a directory; use `Dataset.open`."""

    def __init__(self, root: AnyPath, metadata: DatasetMetadata, index: pa.Table) -> None:
        self.root = root
        self.metadata = metadata
        self.index = index
        """The rows of the index."""
        self._index = Index(metadata, index)

    @classmethod
    def open(cls, root: AnyPath) -> Dataset:
        """Open the dataset in `root`.

        Raises:
            DatasetError: the directory is not a finished dataset, or one of another major version of the format.
        """
        metadata = read_metadata(root)
        return cls(root, metadata, read_table(root / metadata.table(INDEX), SCHEMAS[INDEX]))

    def keys(self, split: Split | None = None) -> list[str]:
        """Keys in canonical order: sorted within a split, `test` before `train`."""
        return self._index.keys(split)

    def locate(self, key: str) -> SampleRange:
        """Position of a sample.

        Raises:
            KeyError: there is no such sample.
            DatasetError: the index points anywhere but into a shard that the metadata lists.
        """
        return self._index.locate(key)

    def sample(self, key: str) -> Sample:
        """Read one sample by one range read.

        Raises:
            KeyError: there is no such sample.
            DatasetError: the index or the sample is damaged; the member is named.
        """
        place = self.locate(key)
        return decode_sample(place, read_range(self.root / place.shard, place.offset, place.length))

    def samples(self, split: Split | None = None) -> Iterator[Sample]:
        """All samples in canonical order, which is the order of their bytes in the shards.

        Raises:
            DatasetError: the index or a sample is damaged; the member is named.
        """
        for key in self.keys(split):
            yield self.sample(key)

    def videos(self) -> Iterator[VideoOutcome]:
        """The outcome of each input video, sorted by video_id.

        Raises:
            DatasetError: the videos table does not follow the format.
        """
        newer = check_version(self.metadata.format_version)
        for row in rows_of(self.table(VIDEOS)):
            try:
                yield video_outcome(row, ignore_unknown=newer)
            except ValidationError as error:
                raise DatasetError(
                    f"{self.metadata.table(VIDEOS)}, {row['video_id']}: {brief(error)}"
                ) from error

    def images(self) -> pa.Table:
        """One row an image; the columns are in README.md, "The images table".

        Raises:
            DatasetError: the images table does not follow the format.
        """
        return self.table(IMAGES)

    def tombstones(self) -> pa.Table:
        """One row a sample that was erased; the columns are in README.md, "The tombstones table".

        Raises:
            DatasetError: the tombstones table does not follow the format.
        """
        if TOMBSTONES not in self.metadata.tables:
            return SCHEMAS[TOMBSTONES].empty_table()
        return self.table(TOMBSTONES)

    def table(self, role: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table, or some columns of it.

        Args:
            role: `index`, `images`, `videos` or `tombstones`.
            columns: their names; all when not given.

        Raises:
            KeyError: there is no such table or column.
            DatasetError: the table does not follow the format.
        """
        schema = SCHEMAS[role]
        wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
        return read_table(self.root / self.metadata.table(role), wanted)


def read_metadata(root: AnyPath) -> DatasetMetadata:
    """Read dataset.json of a directory.

    Raises:
        DatasetError: it is missing, so the directory is not a dataset, or it cannot be read.
    """
    path = root / DATASET_JSON
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root} is no finished dataset: it has no {DATASET_JSON}. Finish the build, or check the path"
        ) from error
    return decode_metadata(data)


def read_table(path: AnyPath, schema: pa.Schema, data: bytes | None = None) -> pa.Table:
    """The columns of `schema` from a Parquet file; columns that are not in it are ignored.

    Args:
        path: the file; only named in messages when `data` is given.
        schema: the columns.
        data: the bytes of the file, when they were read already.

    Raises:
        DatasetError: missing, damaged, or a column is missing or has another type.
    """
    if data is None and isinstance(path, ObjectPath):
        data = path.read_bytes()
    try:
        source = path if data is None else pa.BufferReader(data)
        table = pq.ParquetFile(source, page_checksum_verification=True).read(columns=schema.names)
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise DatasetError(f"{path.name} cannot be read: {error}") from error
    return table


def sample_range(row: Row, shards: dict[str, ShardEntry]) -> SampleRange:
    """Check a row of the index against the metadata's shards.

    Raises:
        DatasetError: naming what is out of range.
    """
    key, name = row["key"], row["shard"]
    shard = shards.get(name)
    if shard is None:
        raise DatasetError(f"{INDEX}: sample {key} points to {name!r}, which {DATASET_JSON} does not list")
    if row["split"] != shard.split:
        raise DatasetError(f"{INDEX}: sample {key} is of split {row['split']!r}, but its shard is {name}")
    start, end = row["offset"], row["offset"] + row["length"]
    if not 0 <= start < end <= shard.bytes:
        raise DatasetError(f"{INDEX}: sample {key} points outside of {name}")
    members = {member["name"]: (member["offset"], member["size"]) for member in row["members"]}
    if len(row["members"]) != len(FIELDS) or set(members) != {f"{key}.{field}" for field in FIELDS}:
        raise DatasetError(f"{INDEX}: sample {key} has other members than the format requires")
    for member, (offset, size) in members.items():
        if size < 0 or offset < start or offset + size > end:
            raise DatasetError(f"{INDEX}: member {member} points outside of its sample")
    return SampleRange(
        key=key,
        split=shard.split,
        shard=name,
        offset=start,
        length=row["length"],
        json_sha256=row["json_sha256"],
        members={field: members[f"{key}.{field}"] for field in FIELDS},
    )


def decode_sample(place: SampleRange, data: bytes) -> Sample:
    """A sample from the bytes of its range, checked against its digests.

    Raises:
        DatasetError: naming the damaged member.
    """
    if len(data) != place.length:
        raise DatasetError(f"{place.shard} ends within sample {place.key}")
    parts = {
        field: data[offset - place.offset : offset - place.offset + size]
        for field, (offset, size) in place.members.items()
    }
    text = parts[JSON_FIELD]
    if sha256_hex(text) != place.json_sha256:
        raise DatasetError(f"{place.shard}: member {place.key}.{JSON_FIELD} is damaged: its sha256 is wrong")
    record = decode_record(text)
    if record.key != place.key:
        raise DatasetError(f"{place.shard}: member {place.key}.{JSON_FIELD} is the record of {record.key}")
    for field, digest in member_digests(record).items():
        if sha256_hex(parts[field]) != digest:
            raise DatasetError(f"{place.shard}: member {place.key}.{field} is damaged: its sha256 is wrong")
    return Sample(
        record=record,
        images=tuple(parts[field] for field in IMAGE_FIELDS),
        masks=tuple(parts[field] for field in MASK_FIELDS),
        landmarks=parts[LANDMARKS_FIELD],
    )


def decode_record(data: bytes) -> IdentityRecord:
    """The record from a sample's JSON member; fields that a newer minor version added are ignored.

    Raises:
        DatasetError: it does not follow the format.
    """
    return decode_record_strictly(data)[0]


def decode_record_strictly(data: bytes) -> tuple[IdentityRecord, bool]:
    """The record from a sample's JSON member, and whether the JSON is canonical.

    Raises:
        DatasetError: it does not follow the format.
    """
    try:
        value, canonical = parse_json(data)
        version = value["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"a sample's JSON member cannot be read: {error}") from error
    newer_minor = check_version(version)
    try:
        record = IdentityRecord.model_validate(value, extra="ignore" if newer_minor else "forbid")
    except ValidationError as error:
        raise DatasetError(f"a sample's JSON member does not follow the format: {brief(error)}") from error
    return record, canonical
