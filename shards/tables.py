"""The tables of a dataset: their columns and the rows that belong to the records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.atomic import PARQUET_SETTINGS, open_atomic
from shards.layout import IMAGES, INDEX, TOMBSTONES, VIDEOS
from shards.schema import IdentityRecord, VideoOutcome
from storage.path import AnyPath

ROW_GROUP = 8192
"""Rows a group; a multiple of 8, so that the images of one sample never straddle two groups."""


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_FLOATS = pa.list_(_required("element", pa.float64()))
_MEMBER = pa.struct(
    [_required("name", pa.string()), _required("offset", pa.int64()), _required("size", pa.int64())]
)

INDEX_SCHEMA = pa.schema(
    [
        _required("key", pa.string()),
        _required("split", pa.string()),
        _required("shard", pa.string()),
        _required("offset", pa.int64()),
        _required("length", pa.int64()),
        _required("json_sha256", pa.string()),
        _required("members", pa.list_(pa.field("element", _MEMBER, nullable=False))),
    ]
)

IMAGES_SCHEMA = pa.schema(
    [
        _required("key", pa.string()),
        _required("index", pa.int8()),
        _required("split", pa.string()),
        _required("person_id", pa.string()),
        _required("video_id", pa.string()),
        _required("source", pa.string()),
        pa.field("license", pa.string()),
        _required("track", pa.int64()),
        _required("frame", pa.int64()),
        _required("time_s", pa.float64()),
        _required("face_px", pa.float64()),
        _required("crop_side_px", pa.float64()),
        _required("yaw", pa.float64()),
        _required("pitch", pa.float64()),
        _required("roll", pa.float64()),
        _required("eyes_open", pa.float64()),
        _required("sharpness", pa.float64()),
        pa.field("identity_cosine", pa.float64()),
        _required("quality_metric", pa.string()),
        _required("quality", pa.float64()),
        _required("quality_higher_is_better", pa.bool_()),
        _required("sha256", pa.string()),
        _required("mask_sha256", pa.string()),
    ]
)

TOMBSTONES_SCHEMA = pa.schema(
    [
        _required("key_sha256", pa.string()),
        _required("generation", pa.int64()),
        _required("reason", pa.string()),
    ]
)

_ATTRIBUTE = pa.struct([_required("name", pa.string()), _required("value", pa.string())])
_FROM_SOURCE = [
    _required("source", pa.string()),
    pa.field("origin", pa.string()),
    pa.field("license", pa.string()),
    pa.field("span_s", _FLOATS),
    pa.field("annotated_box", _FLOATS),
    pa.field("source_person", pa.string()),
    _required("attributes", pa.list_(pa.field("element", _ATTRIBUTE, nullable=False))),
]
_TRACK = pa.struct(
    [
        _required("track", pa.int64()),
        _required("start_s", pa.float64()),
        _required("end_s", pa.float64()),
        _required("frames", pa.int64()),
        _required("usable_frames", pa.int64()),
        pa.field("crop_px", pa.float64()),
        pa.field("face_px", pa.float64()),
        pa.field("key", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

VIDEOS_SCHEMA = pa.schema(
    [
        _required("video_id", pa.string()),
        *_FROM_SOURCE,
        _required("uri", pa.string()),
        _required("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        _required("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("container", pa.string()),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("fps", pa.float64()),
        pa.field("frames", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("rotation_deg", pa.int64()),
        pa.field("color_transfer", pa.string()),
        _required("analysed_frames", pa.int64()),
        _required("corrupt_frames", pa.int64()),
        _required("faces_seen", pa.int64()),
        _required("frame_reasons", pa.map_(pa.string(), pa.int64())),
        _required("tracks", pa.list_(pa.field("element", _TRACK, nullable=False))),
        _required("identities", pa.int64()),
    ]
)

SCHEMAS = {
    INDEX: INDEX_SCHEMA,
    IMAGES: IMAGES_SCHEMA,
    VIDEOS: VIDEOS_SCHEMA,
    TOMBSTONES: TOMBSTONES_SCHEMA,
}
"""Columns of each table, by role."""

Row = dict[str, Any]


def image_rows(record: IdentityRecord) -> list[Row]:
    """The 8 rows of the images table that belong to a sample."""
    return [
        {
            "key": record.key,
            "index": index,
            "split": record.split.value,
            "person_id": record.person_id,
            "video_id": record.video_id,
            "source": record.source,
            "license": record.license,
            "track": record.track,
            "frame": image.frame,
            "time_s": image.time_s,
            "face_px": image.face_px,
            "crop_side_px": image.crop_px[2],
            "yaw": image.pose.yaw,
            "pitch": image.pose.pitch,
            "roll": image.pose.roll,
            "eyes_open": image.eyes_open,
            "sharpness": image.sharpness,
            "identity_cosine": image.identity_cosine,
            "quality_metric": image.quality.metric,
            "quality": image.quality.value,
            "quality_higher_is_better": image.quality.higher_is_better,
            "sha256": image.sha256,
            "mask_sha256": image.mask_sha256,
        }
        for index, image in enumerate(record.images)
    ]


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table as Python values, without holding all of them at once."""
    for batch in table.to_batches(max_chunksize=ROW_GROUP):
        yield from batch.to_pylist()


def regrouped(tables: Iterable[pa.Table], rows: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows and one chunk, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += len(table)
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows).combine_chunks()
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held).combine_chunks()


def video_row(video: VideoOutcome) -> Row:
    """The row of the videos table for a video."""
    row = video.model_dump(mode="json")
    row["frame_reasons"] = sorted(row["frame_reasons"].items())
    return row


def video_outcome(row: Row, *, ignore_unknown: bool = False) -> VideoOutcome:
    """The record behind a row of the videos table.

    Args:
        row: as pyarrow's `to_pylist` gives it.
        ignore_unknown: for files of a newer minor version.

    Raises:
        pydantic.ValidationError: the row does not follow the format.
    """
    value = {**row, "frame_reasons": dict(row["frame_reasons"])}
    return VideoOutcome.model_validate(value, extra="ignore" if ignore_unknown else "forbid")


class RowWriter:
    """Writes rows to a Parquet file in groups of fixed size, so that memory stays at one group.

    The bytes of the file depend on the rows alone, not on the tables in which they came.
    """

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._pending: list[Row] = []
        self._tables: list[pa.Table] = []
        self._held = 0
        self.rows = 0

    def add(self, row: Row) -> None:
        """Append one row."""
        self._pending.append(row)
        if self._held + len(self._pending) == ROW_GROUP:
            self._take_pending()

    def add_table(self, table: pa.Table) -> None:
        """Append the rows of a table.

        Raises:
            ValueError: it has other columns or types than the file.
        """
        if not table.schema.equals(self._schema):
            raise ValueError("the rows have other columns or types than the file")
        self._take_pending()
        self._take(table)

    def flush(self) -> None:
        """Write what is pending as one row group."""
        self._take_pending()
        if self._held:
            self._write(self._held)

    def _take_pending(self) -> None:
        if self._pending:
            rows, self._pending = self._pending, []
            self._take(pa.Table.from_pylist(rows, schema=self._schema))

    def _take(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._held += len(table)
        self.rows += len(table)
        while self._held >= ROW_GROUP:
            self._write(ROW_GROUP)

    def _write(self, count: int) -> None:
        table = pa.concat_tables(self._tables)
        # One chunk: Arrow begins a page at the border of a chunk.
        self._writer.write_table(table.slice(0, count).combine_chunks())
        rest = table.slice(count)
        self._tables, self._held = ([rest] if len(rest) else []), len(rest)


@contextmanager
def open_rows(path: AnyPath, schema: pa.Schema) -> Iterator[RowWriter]:
    """A `RowWriter` onto a file that appears, whole, when the block ends without an error.

    Raises:
        OutOfSpace: the disk or the quota is full.
    """
    with open_atomic(path) as file, pq.ParquetWriter(file, schema, **PARQUET_SETTINGS) as writer:
        rows = RowWriter(writer, schema)
        yield rows
        rows.flush()
