"""The tables as the verifier uses them: looked up by key, and checked by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from shards.canonical import sha256_hex
from shards.findings import Check, Findings
from shards.layout import IMAGES, INDEX, TABLES, TOMBSTONES, VIDEOS, is_member_name, table_name
from shards.metadata import DatasetError, DatasetMetadata, brief
from shards.reader import read_table
from shards.record_checks import validate_video
from shards.schema import IMAGES_PER_IDENTITY, Status, VideoOutcome
from shards.tables import SCHEMAS, Row, rows_of, video_outcome
from storage.errors import is_of_storage
from storage.path import AnyPath, local_copy


class KeyedTable:
    """Rows of a table by the value of one column."""

    def __init__(self, table: pa.Table, column: str) -> None:
        self._table = table
        self._rows: dict[str, list[int]] = {}
        for number, key in enumerate(table[column].to_pylist()):
            self._rows.setdefault(key, []).append(number)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def keys(self) -> list[str]:
        """Distinct values, in the order of their first rows."""
        return list(self._rows)

    def rows(self, key: str) -> list[Row]:
        """The rows of a key, in order; empty when there are none."""
        numbers = self._rows.get(key, [])
        if not numbers:
            return []
        first, last = numbers[0], numbers[-1]
        if last - first == len(numbers) - 1:
            return list(self._table.slice(first, len(numbers)).to_pylist())
        return list(self._table.take(numbers).to_pylist())

    def numbers(self, key: str) -> list[int]:
        """The numbers of a key's rows."""
        return self._rows.get(key, [])


class StoredTables:
    """The tables of a dataset. A table that cannot be read is None, and no check uses it.

    Attributes:
        names: file of each table, by role.
    """

    def __init__(
        self, root: AnyPath, metadata: DatasetMetadata | None, findings: Findings, *, newer_minor: bool
    ) -> None:
        # Without metadata, the names are those of a build.
        self.names = {role: table_name(role) for role in TABLES}
        if metadata is not None:
            self.names = {role: entry.name for role, entry in metadata.tables.items() if role in SCHEMAS}
        tables = {
            role: _load(root / name, SCHEMAS[role], findings, newer_minor=newer_minor)
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
        if self._by_shard is None:
            return {}
        return {
            member["offset"]: (member["name"], member["size"])
            for row in self._by_shard.rows(shard)
            for member in row["members"]
            if member["size"] >= 0 and len(member["name"]) <= 100 and is_member_name(member["name"])
        }

    def videos_by_status(self) -> dict[Status, int]:
        """Number of outcomes with each status."""
        outcomes = list((self.videos or {}).values())
        return {status: sum(video.status is status for video in outcomes) for status in Status}


def _load(path: AnyPath, schema: pa.Schema, findings: Findings, *, newer_minor: bool) -> pa.Table | None:
    name = path.name
    if not path.is_file():
        findings.add(Check.MISSING_FILE, name, "is not there")
        return None
    try:
        table = read_table(path, schema)
        with local_copy(path) as file:
            written = pq.read_schema(file).remove_metadata()
    except (DatasetError, OSError, ValueError) as error:
        if is_of_storage(error):
            raise
        findings.add(Check.BAD_TABLE, name, str(error))
        return None
    if not newer_minor and not written.equals(schema):
        findings.add(Check.BAD_TABLE, name, "has other columns or types than the format requires")
    return table


def _outcomes(
    table: pa.Table, name: str, findings: Findings, *, newer_minor: bool
) -> dict[str, VideoOutcome]:
    outcomes: dict[str, VideoOutcome] = {}
    last = ""
    for row in rows_of(table):
        video_id = row["video_id"]
        where = f"{name}:{video_id}"
        if video_id in outcomes:
            findings.add(Check.VIDEOS_DISAGREE, where, "has more than one row")
        elif video_id < last:
            findings.add(Check.VIDEOS_DISAGREE, where, "is not sorted by video_id")
        last = video_id
        try:
            outcome = video_outcome(row, ignore_unknown=newer_minor)
        except ValidationError as error:
            findings.add(Check.VIDEOS_DISAGREE, where, brief(error))
            continue
        for message in validate_video(outcome):
            findings.add(Check.VIDEOS_DISAGREE, where, message)
        outcomes[video_id] = outcome
    return outcomes


def _check_order(index: pa.Table, name: str, findings: Findings) -> None:
    places = list(zip(index["split"].to_pylist(), index["key"].to_pylist(), strict=True))
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
    digests = tombstones["key_sha256"].to_pylist()
    if digests != sorted(set(digests)):
        findings.add(Check.BAD_TABLE, name, "is not sorted by key_sha256, each digest once")
    erased = set(digests)
    for key in [] if index is None else index["key"].to_pylist():
        if sha256_hex(key.encode()) in erased:
            findings.add(Check.ERASED_SAMPLE, f"{name}:{key}", "was erased, but the index still lists it")
