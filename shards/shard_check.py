"""Checks one shard from its first byte to its last: a unit of work that may run anywhere.

What must agree across shards is left to `shards.verify`, from what is returned here of each sample.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

from shards.findings import Check, Finding, Findings
from shards.heap import frozen_heap
from shards.layout import DATASET_JSON, is_member_name, split_member, split_of
from shards.metadata import ShardEntry
from shards.sample_checks import CheckedSample, FoundSample, check_sample
from shards.shard_tables import KnownTables, NotKnown, ShardTables
from shards.tar import Fault, Member, members
from storage.errors import is_of_storage
from storage.heartbeat import beat
from storage.path import AnyPath, local_copy

AHEAD = 32
AHEAD_BYTES = 2**28
"""Samples, and bytes of them, that are read and wait to be decoded, at most."""
THREADS = 2
"""Of a task that has one CPU: one decodes while the other reads and compares."""


@dataclass(frozen=True)
class ShardCheck:
    """A shard to check: the task.

    Attributes:
        root: of the dataset.
        name: of the shard.
        entry: of dataset.json, if it can be read.
        tables: the rows of the tables that belong to the shard.
    """

    root: AnyPath
    name: str
    entry: ShardEntry | None
    tables: ShardTables

    @property
    def label(self) -> str:
        """Names the task in messages."""
        return self.name


@dataclass
class SeenSample:
    """A sample of a shard.

    Attributes:
        key: of the sample.
        person_id: from its record, else from the images table; None when neither is readable.
        video_id: likewise.
        faults: found in the bytes up to its end.
        findings: what failed in the sample itself.
    """

    key: str
    person_id: str | None
    video_id: str | None
    faults: list[Finding]
    findings: list[Finding] = field(default_factory=list)


@dataclass
class SeenShard:
    """What a shard holds.

    Attributes:
        samples: in their order.
        findings: of the shard as a whole, and of bytes behind the last sample.
    """

    samples: list[SeenSample]
    findings: list[Finding]


@frozen_heap()
def check_shard_alone(task: ShardCheck) -> SeenShard | None:
    """Check a shard with the rows that belong to it; None where other rows are needed, because there is damage.

    Raises:
        StorageError: the object store cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            return check_shard(task.root, task.name, task.tables.opened(), pool, entry=task.entry)
        except NotKnown:
            return None


def check_shard(
    root: AnyPath,
    name: str,
    tables: KnownTables,
    pool: Executor,
    *,
    entry: ShardEntry | None,
    settled: Callable[[], None] = lambda: None,
) -> SeenShard:
    """Check one shard from its first byte to its last.

    Args:
        root: of the dataset.
        name: of the shard.
        tables: rows by key.
        pool: decodes images.
        entry: of dataset.json, if it can be read.
        settled: called once a sample is checked.

    Raises:
        NotKnown: `tables` does not have all rows that are needed.
        StorageError: the object store cannot be read.
    """
    reader = _Reader(name, tables, pool, settled)
    findings = Findings()
    whole = entry.bytes if entry is not None else 0
    try:
        beat(whole)  # an object of a store is copied first
        with local_copy(root / name) as path:
            digest = pool.submit(file_digest, path)
            try:
                with path.open("rb") as file:
                    reader.read(file)
            finally:
                reader.settle(most=0)
            beat(whole)
            sha256, size = digest.result()
            beat()
    except OSError as error:
        if is_of_storage(error):
            raise
        findings.add(Check.UNREADABLE_FILE, name, str(error))
        return SeenShard(reader.samples, reader.rest + findings.found)
    if entry is not None:
        if (sha256, size) != (entry.sha256, entry.bytes):
            message = f"{size:,} bytes, sha256 {sha256}; {DATASET_JSON} lists {entry.bytes:,}, {entry.sha256}"
            findings.add(Check.FILE_DIGEST, name, message)
        if len(reader.samples) != entry.samples:
            findings.add(
                Check.WRONG_COUNT,
                name,
                f"holds {len(reader.samples)} samples, {DATASET_JSON} lists {entry.samples}",
            )
    return SeenShard(reader.samples, reader.rest + findings.found)


def file_digest(path: AnyPath) -> tuple[str, int]:
    """The sha256 and the size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


class _Reader:
    """Takes the samples out of a shard, and has their images decoded."""

    def __init__(self, shard: str, tables: KnownTables, pool: Executor, settled: Callable[[], None]) -> None:
        self._shard = shard
        self._split = split_of(shard)
        self._tables = tables
        self._pool = pool
        self._settled = settled
        self._faults = Findings()
        self._decoding: deque[tuple[SeenSample, CheckedSample]] = deque()
        self.samples: list[SeenSample] = []
        self.rest: list[Finding] = []

    def read(self, file: BinaryIO) -> None:
        """Take all samples."""
        key, group = "", list[Member]()
        for item in self._members(file):
            item_key, _ = split_member(item.name)
            if group and item_key != key:
                self._check(key, group)
                group = []
            key = item_key
            group.append(item)
        if group:
            self._check(key, group)

    def _members(self, file: BinaryIO) -> Iterator[Member]:
        for item in members(file, self._tables.members_of(self._shard)):
            if isinstance(item, Fault):
                where = f"{self._shard}:{item.name}" if item.name else self._shard
                self._faults.add(item.check, where, f"{item.message} (byte {item.offset:,})")
            elif not is_member_name(item.name):
                message = "is not a member of a sample"
                self._faults.add(Check.EXTRA_MEMBER, f"{self._shard}:{item.name}", message)
            else:
                yield item

    def _check(self, key: str, group: list[Member]) -> None:
        beat()
        faults, self._faults = self._faults, Findings()
        found = FoundSample(self._shard, self._split, key, group)
        checked = check_sample(found, self._tables, Findings(), self._pool)
        person_id = video_id = None
        if checked.record is not None:
            person_id, video_id = checked.record.person_id, checked.record.video_id
        elif self._tables.images is not None and (rows := self._tables.images.rows(key)):
            person_id, video_id = rows[0]["person_id"], rows[0]["video_id"]
        seen = SeenSample(key, person_id, video_id, faults.found)
        self.samples.append(seen)
        self._decoding.append((seen, checked))
        self.settle(most=AHEAD)

    def settle(self, most: int) -> None:
        """Report on the first samples, until at most so many wait for their images; with 0, on the whole shard."""
        while len(self._decoding) > most or sum(each.size for _, each in self._decoding) > AHEAD_BYTES:
            seen, checked = self._decoding.popleft()
            seen.findings = checked.settled()
            self._settled()
        if most == 0:
            self.rest += self._faults.found
            self._faults = Findings()


def threads() -> int:
    """Threads that decode, in a process that has all CPUs."""
    return len(os.sched_getaffinity(0))
