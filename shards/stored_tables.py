"""The tables as the verifier uses them: looked up by key, and checked by themselves.

Rows lie in temporary files that are mapped into memory, so that a million of them take as little as a few do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from shards.atomic import named_when_full
from shards.canonical import sha256_hex
from shards.findings import Check, Findings
from shards.layout import IMAGES, INDEX, TABLES, TOMBSTONES, VIDEOS, table_name
from shards.metadata import DatasetError, DatasetMetadata, brief
from shards.record_checks import validate_video
from shards.schema import IMAGES_PER_IDENTITY, Status, VideoOutcome
from shards.shard_tables import KeyedTable, ShardTables, distinct, members_in, stream_of, values_of
from shards.streamed import table_batches
from shards.tables import SCHEMAS, Row, rows_of, video_outcome
from storage.errors import is_of_storage
from storage.path import AnyPath, local_copy


class StoredTables:
    """The tables of a dataset. A table that cannot be read is None, and no check uses it.

    Args:
        root: of the dataset.
        metadata: its dataset.json, if it can be read.
        findings: takes what is wrong in the tables.
        newer_minor: whether the dataset may have fields that this code does not know.
        scratch: directory for temporary files, which must stay while the tables are used.

    Attributes:
        names: file of each table, by role.
    """

    def __init__(
        self,
        root: AnyPath,
        metadata: DatasetMetadata | None,
        findings: Findings,
        *,
        newer_minor: bool,
        scratch: Path,
    ) -> None:
        # Without metadata, the names are those of a build.
        self._newer_minor = newer_minor
        self.names = {role: table_name(role) for role in TABLES}
        if metadata is not None:
            self.names = {role: entry.name for role, entry in metadata.tables.items() if role in SCHEMAS}
        tables = {
            role: _load(root / name, SCHEMAS[role], findings, scratch / role, newer_minor=newer_minor)
            for role, name in self.names.items()
        }
        index, images, videos = tables[INDEX], tables[IMAGES], tables[VIDEOS]
        self._rows = {role: None if table is None else table.num_rows for role, table in tables.items()}
        self.index = None if index is None else KeyedTable(index, "key")
        self.images = None if images is None else KeyedTable(images, "key")
        self._by_shard = None if index is None else KeyedTable(index, "shard")
        self.videos = None
        if videos is not None:
            self.videos = _outcomes(videos, self.names[VIDEOS], findings, newer_minor=newer_minor)
        if index is not None:
            _check_order(index, self.names[INDEX], findings)
        if self.images is not None:
            _check_images(self.images, self.index, self.names[IMAGES], findings)
        tombstones = tables.get(TOMBSTONES)
        if tombstones is not None:
            _check_tombstones(tombstones, index, self.names[TOMBSTONES], findings)

    def rows(self) -> Mapping[str, int | None]:
        """Rows of each table, by role; None where it could not be read."""
        return self._rows

    def members_of(self, shard: str) -> dict[int, tuple[str, int]]:
        """Offset of the data of each member of a shard -> its name and size, as far as the index is valid."""
        return {} if self._by_shard is None else members_in(self._by_shard.rows(shard))

    def of_shard(self, shard: str) -> ShardTables:
        """The rows that belong to a shard.

        Raises:
            ValueError: the index cannot be read.
        """
        if self.index is None or self._by_shard is None:
            raise ValueError("without an index no rows are known to belong to a shard")
        keys = distinct(self._by_shard.part([shard]), "key")
        images = None if self.images is None else self.images.part(keys)
        videos = None
        if self.videos is not None:
            videos = self.videos.rows(distinct(images, "video_id") if images is not None else [])
        return ShardTables(
            shard,
            self.names,
            keys,
            stream_of(self.index.part(keys)),
            None if images is None else stream_of(images),
            None if videos is None else stream_of(videos),
            self._newer_minor,
        )


class StoredOutcomes:
    """The readable rows of the videos table; each becomes a record only when it is asked for.

    Args:
        table: by video_id; of several readable rows of a video, the last one counts.
        unreadable: numbers of the rows that do not follow the format.
        newer_minor: whether rows may have fields that this code does not know.
    """

    def __init__(self, table: KeyedTable, unreadable: set[int], *, newer_minor: bool) -> None:
        self._table, self._unreadable, self._newer_minor = table, unreadable, newer_minor

    def readable(self, video_id: str) -> list[int]:
        """Numbers of the readable rows of a video, in order."""
        return [number for number in self._table.numbers(video_id) if number not in self._unreadable]

    def __contains__(self, video_id: str) -> bool:
        return bool(self.readable(video_id))

    def get(self, video_id: str) -> VideoOutcome | None:
        """The outcome of a video; None when there is none."""
        rows = self.rows([video_id]).to_pylist()
        return video_outcome(rows[0], ignore_unknown=self._newer_minor) if rows else None

    def rows(self, video_ids: list[str]) -> pa.Table:
        """The rows of some videos; those that have none are left out."""
        numbers = [found[-1] for video_id in video_ids if (found := self.readable(video_id))]
        return self._table.table.take(pa.array(numbers, pa.int64()))

    def samples(self) -> Iterator[tuple[str, set[str]]]:
        """Each video with the keys of the samples that it names."""
        for row in self._counted("video_id", "tracks"):
            yield row["video_id"], {track["key"] for track in row["tracks"] if track["key"]}

    def by_status(self) -> dict[Status, int]:
        """Number of outcomes with each status."""
        counts = Counter(row["status"] for row in self._counted("video_id", "status"))
        return {status: counts[status] for status in Status}

    def _counted(self, *columns: str) -> Iterator[Row]:
        """Some columns of the rows that count."""
        for number, row in enumerate(rows_of(self._table.table.select(columns))):
            if self.readable(row["video_id"])[-1:] == [number]:
                yield row


def _load(
    path: AnyPath, schema: pa.Schema, findings: Findings, scratch: Path, *, newer_minor: bool
) -> pa.Table | None:
    name = path.name
    if not path.is_file():
        findings.add(Check.MISSING_FILE, name, "is not there")
        return None
    try:
        with local_copy(path) as file:
            table = _mapped(table_batches(file, schema), schema, scratch)
            written = pq.read_schema(file).remove_metadata()
    except (DatasetError, OSError, ValueError) as error:
        if is_of_storage(error):
            raise
        findings.add(Check.BAD_TABLE, name, str(error))
        return None
    if not newer_minor and not written.equals(schema):
        findings.add(Check.BAD_TABLE, name, "has other columns or types than the format requires")
    return table


def _mapped(batches: Iterable[pa.Table], schema: pa.Schema, scratch: Path) -> pa.Table:
    """The rows of some tables as one table that lies in a file, mapped into memory.

    Raises:
        OutOfSpace: the temporary directory is full.
    """
    with (
        named_when_full(scratch.parent),
        pa.OSFile(str(scratch), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_table(batch)
    return pa.ipc.open_file(pa.memory_map(str(scratch))).read_all()


def _outcomes(table: pa.Table, name: str, findings: Findings, *, newer_minor: bool) -> StoredOutcomes:
    unreadable: set[int] = set()
    keyed = KeyedTable(table, "video_id")
    outcomes = StoredOutcomes(keyed, unreadable, newer_minor=newer_minor)
    last = ""
    for number, row in enumerate(rows_of(table)):
        video_id = row["video_id"]
        where = f"{name}:{video_id}"
        if any(other < number for other in outcomes.readable(video_id)):
            findings.add(Check.VIDEOS_DISAGREE, where, "has more than one row")
        elif video_id < last:
            findings.add(Check.VIDEOS_DISAGREE, where, "is not sorted by video_id")
        last = video_id
        try:
            outcome = video_outcome(row, ignore_unknown=newer_minor)
        except ValidationError as error:
            findings.add(Check.VIDEOS_DISAGREE, where, brief(error))
            unreadable.add(number)
            continue
        for message in validate_video(outcome):
            findings.add(Check.VIDEOS_DISAGREE, where, message)
    return outcomes


def _check_order(index: pa.Table, name: str, findings: Findings) -> None:
    places = ((row["split"], row["key"]) for row in rows_of(index.select(["split", "key"])))
    for before, after in pairwise(places):
        if before >= after:
            findings.add(Check.INDEX_DISAGREES, f"{name}:{after[1]}", "is not sorted by (split, key)")


def _check_images(images: KeyedTable, index: KeyedTable | None, name: str, findings: Findings) -> None:
    expected = 0
    for key in images.keys() if index is None else index.keys():
        numbers = images.numbers(key)
        where = f"{name}:{key}"
        if len(numbers) != IMAGES_PER_IDENTITY:
            findings.add(
                Check.IMAGES_DISAGREE, where, f"has {len(numbers)} rows, expected {IMAGES_PER_IDENTITY}"
            )
        elif numbers != list(range(expected, expected + IMAGES_PER_IDENTITY)):
            findings.add(
                Check.IMAGES_DISAGREE, where, "its rows are not where the order of the index puts them"
            )
        expected += len(numbers)


def _check_tombstones(tombstones: pa.Table, index: pa.Table | None, name: str, findings: Findings) -> None:
    digests = list(values_of(tombstones["key_sha256"]))
    if digests != sorted(set(digests)):
        findings.add(Check.BAD_TABLE, name, "is not sorted by key_sha256, each digest once")
    erased = set(digests)
    for key in () if index is None else values_of(index["key"]):
        if sha256_hex(key.encode()) in erased:
            findings.add(Check.ERASED_SAMPLE, f"{name}:{key}", "was erased, but the index still lists it")
