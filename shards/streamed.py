"""Reads a dataset of any size in little memory: tables in batches, and single samples without the whole index.

`shards.reader` reads whole tables, which is right for a trainer, but at 134,077 identities the index and a million
rows of images fill gigabytes. The same checks are made here, batch by batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.layout import INDEX
from shards.metadata import DatasetError, DatasetMetadata, ShardEntry
from shards.reader import decode_sample, read_metadata, sample_range
from shards.sample import Sample
from shards.tables import ROW_GROUP, SCHEMAS, Row
from storage.errors import is_of_storage
from storage.path import AnyPath, local_copy, read_range


@dataclass(frozen=True)
class FoundSamples:
    """Some samples of a dataset: their rows of the index, found by one pass over it.

    Attributes:
        root: of the dataset.
        shards: the metadata's shards by name.
        rows: the index's row of each key that it has.
    """

    root: AnyPath
    shards: dict[str, ShardEntry]
    rows: Mapping[str, Row]

    def __contains__(self, key: object) -> bool:
        """Whether the dataset has this sample."""
        return key in self.rows

    def sample(self, key: str) -> Sample:
        """Read one sample by one range read.

        Raises:
            KeyError: there is no such sample among them.
            DatasetError: the index or the sample is damaged; the member is named.
        """
        if key not in self.rows:
            raise KeyError(f"no sample {key!r} in the dataset")
        place = sample_range(self.rows[key], self.shards)
        return decode_sample(place, read_range(self.root / place.shard, place.offset, place.length))


@dataclass(frozen=True)
class StreamedDataset:
    """A finished dataset in a directory; use `StreamedDataset.open`.

    Attributes:
        root: its directory.
        metadata: the content of dataset.json.
    """

    root: AnyPath
    metadata: DatasetMetadata

    @classmethod
    def open(cls, root: AnyPath) -> StreamedDataset:
        """Open the dataset in `root`; only dataset.json is read.

        Raises:
            DatasetError: the directory is not a finished dataset, or one of another major version of the format.
        """
        return cls(root, read_metadata(root))

    def batches(self, role: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """A table, or some columns of it, in parts of at most `ROW_GROUP` rows.

        Args:
            role: `index`, `images`, `videos` or `tombstones`.
            columns: their names; all when not given.

        Raises:
            KeyError: there is no such table or column.
            DatasetError: the table does not follow the format.
        """
        schema = SCHEMAS[role]
        wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
        return table_batches(self.root / self.metadata.table(role), wanted)

    def find(self, keys: Collection[str]) -> FoundSamples:
        """Look up samples; keys that the dataset does not have are left out.

        Raises:
            DatasetError: the index does not follow the format.
        """
        path = self.root / self.metadata.table(INDEX)
        rows = {row["key"]: row for row in rows_where(path, SCHEMAS[INDEX], "key", keys)}
        return FoundSamples(self.root, {shard.name: shard for shard in self.metadata.shards}, rows)


def table_batches(path: AnyPath, schema: pa.Schema, rows: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The columns of `schema` from a Parquet file, in order; columns that are not in it are ignored.

    Args:
        path: the file.
        schema: the columns.
        rows: of a batch, at most.

    Raises:
        DatasetError: missing, damaged, or a column is missing or has another type.
    """
    with _named(path), local_copy(path) as local:
        file = pq.ParquetFile(local, page_checksum_verification=True)
        _as(schema, file.schema_arrow.empty_table())  # a file without rows has no batch to check
        for batch in file.iter_batches(rows, columns=schema.names, use_threads=False):
            yield _as(schema, pa.Table.from_batches([batch]))


def rows_where(path: AnyPath, schema: pa.Schema, column: str, values: Collection[str]) -> Iterator[Row]:
    """The rows of a Parquet file whose `column` is one of `values`; other row groups' other columns are not read.

    Raises:
        DatasetError: as `table_batches`.
    """
    wanted = pa.array(sorted(values), pa.string())
    key = pa.schema([schema.field(column)])
    with _named(path), local_copy(path) as local:
        file = pq.ParquetFile(local, page_checksum_verification=True)
        _as(schema, file.schema_arrow.empty_table())
        for group in range(file.num_row_groups):
            names = _as(key, file.read_row_group(group, [column], use_threads=False))[column]
            places = pc.indices_nonzero(pc.is_in(names, wanted))
            if len(places):
                table = _as(schema, file.read_row_group(group, schema.names, use_threads=False))
                yield from table.take(places).to_pylist()


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The columns of `schema`, checked."""
    table = table.select(schema.names).cast(schema)
    table.validate(full=True)
    return table


@contextmanager
def _named(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, DatasetError) or is_of_storage(error):
            raise
        raise DatasetError(f"{path.name} cannot be read: {error}") from error
