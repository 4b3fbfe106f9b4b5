"""The rows of the tables that belong to one shard, small enough to travel to where the shard is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.layout import is_member_name
from shards.schema import VideoOutcome
from shards.tables import ROW_GROUP, Row, rows_of, video_outcome


class NotKnown(Exception):  # noqa: N818 - says what happened, which is no error
    """A shard needs rows that were not given with it: it holds other samples than the index says."""


class Rows(Protocol):
    """Rows of a table by the value of one column."""

    def rows(self, key: str) -> list[Row]:
        """The rows of a key, in order; empty when there are none."""
        ...


class Outcomes(Protocol):
    """The readable rows of the videos table."""

    def get(self, video_id: str) -> VideoOutcome | None:
        """The outcome of a video; None when there is none."""
        ...


class KnownTables(Protocol):
    """What the check of a sample uses of the tables; a table that cannot be read is None."""

    @property
    def names(self) -> Mapping[str, str]:
        """File of each table, by role."""
        ...

    @property
    def index(self) -> Rows | None:
        """By key."""
        ...

    @property
    def images(self) -> Rows | None:
        """By key."""
        ...

    @property
    def videos(self) -> Outcomes | None:
        """By video_id."""
        ...

    def members_of(self, shard: str) -> dict[int, tuple[str, int]]:
        """Offset of the data of each member of a shard -> its name and size, as far as the index is valid."""
        ...


class KeyedTable:
    """Rows of a table by the value of a column of text: 16 bytes of memory a row, beside the table."""

    def __init__(self, table: pa.Table, column: str) -> None:
        self.table = table
        self._values = table[column]
        hashes = np.fromiter(map(hash, values_of(self._values)), np.int64, len(table))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __contains__(self, key: str) -> bool:
        return bool(self.numbers(key))

    def keys(self) -> Iterator[str]:
        """Distinct values, in the order of their first rows."""
        last = None
        for number, key in enumerate(values_of(self._values)):
            if key != last and self.numbers(key)[0] == number:
                yield key
            last = key

    def rows(self, key: str) -> list[Row]:
        """The rows of a key, in order; empty when there are none."""
        return list(self.part([key]).to_pylist())

    def part(self, keys: list[str]) -> pa.Table:
        """The rows of some keys."""
        numbers = [number for key in keys for number in self.numbers(key)]
        if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return self.table.slice(numbers[0], len(numbers))
        return self.table.take(pa.array(numbers, pa.int64()))

    def numbers(self, key: str) -> list[int]:
        """The numbers of a key's rows, in order."""
        wanted = hash(key)
        first, end = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        return [number for number in self._order[first:end].tolist() if self._values[number].as_py() == key]


@dataclass(frozen=True)
class ShardTables:
    """Rows that belong to a shard, as they travel: Arrow IPC streams.

    Attributes:
        shard: its name.
        names: file of each table, by role.
        keys: those that the index lists for the shard; all of their rows are here.
        index: rows of the index.
        images: rows of the images table; None when it cannot be read.
        videos: readable rows of the videos table, of the videos that the images name; likewise.
        newer_minor: whether the dataset may have fields that this code does not know.
    """

    shard: str
    names: Mapping[str, str]
    keys: list[str]
    index: bytes
    images: bytes | None
    videos: bytes | None
    newer_minor: bool

    def opened(self) -> KnownTables:
        """The rows, to be looked up."""
        return _OpenedTables(self)


class _OpenedTables:
    def __init__(self, of: ShardTables) -> None:
        known = frozenset(of.keys)
        self.names = of.names
        self._by_shard = KeyedTable(table_of(of.index), "shard")
        self.index = _PartOfTable(table_of(of.index), known)
        self.images = None if of.images is None else _PartOfTable(table_of(of.images), known)
        self.videos = None
        if of.videos is not None:
            outcomes = (
                video_outcome(row, ignore_unknown=of.newer_minor) for row in rows_of(table_of(of.videos))
            )
            self.videos = _PartOfOutcomes({outcome.video_id: outcome for outcome in outcomes})

    def members_of(self, shard: str) -> dict[int, tuple[str, int]]:
        return members_in(self._by_shard.rows(shard))


class _PartOfTable:
    def __init__(self, table: pa.Table, known: frozenset[str]) -> None:
        self._keyed = KeyedTable(table, "key")
        self._known = known

    def rows(self, key: str) -> list[Row]:
        if key not in self._known:
            raise NotKnown
        return self._keyed.rows(key)


class _PartOfOutcomes:
    def __init__(self, outcomes: dict[str, VideoOutcome]) -> None:
        self._outcomes = outcomes

    def get(self, video_id: str) -> VideoOutcome:
        if video_id not in self._outcomes:
            raise NotKnown
        return self._outcomes[video_id]


def members_in(rows: list[Row]) -> dict[int, tuple[str, int]]:
    """Offset of the data of each member -> its name and size, as far as rows of the index are valid."""
    return {
        member["offset"]: (member["name"], member["size"])
        for row in rows
        for member in row["members"]
        if member["size"] >= 0 and len(member["name"]) <= 100 and is_member_name(member["name"])
    }


def stream_of(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream: without the other rows of its buffers, which pickling would keep."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def table_of(data: bytes) -> pa.Table:
    """The table of an Arrow IPC stream."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def values_of(column: pa.ChunkedArray) -> Iterator[str]:
    """The values of a column of text, without holding all of them at once."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), ROW_GROUP):
            yield from chunk.slice(start, ROW_GROUP).to_pylist()


def distinct(table: pa.Table, column: str) -> list[str]:
    """The distinct values of a column of text."""
    values: list[str] = pc.unique(table[column]).to_pylist()
    return values
