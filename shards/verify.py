"""Checks a dataset from end to end, and reports all errors, not only the first.

Each byte is covered: tar headers, padding and ends must be the canonical ones, images and masks match the
digests in their records, records match the index, tables match dataset.json, and dataset.json its own digest.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import BinaryIO

from shards.atomic import TEMPORARY
from shards.findings import Check, Finding, Findings
from shards.heap import frozen_heap
from shards.layout import (
    DATASET_JSON,
    IMAGES,
    INDEX,
    VIDEOS,
    generation_of,
    is_member_name,
    is_shard_name,
    number_of,
    shard_name,
    split_member,
    split_of,
)
from shards.metadata import (
    DatasetError,
    DatasetMetadata,
    ShardEntry,
    UnsupportedVersion,
    check_version,
)
from shards.reader import read_metadata
from shards.sample_checks import CheckedSample, FoundSample, check_sample
from shards.schema import IMAGES_PER_IDENTITY, IdentityRecord, Split
from shards.stored_tables import StoredTables
from shards.tar import Fault, Member, members
from storage.errors import is_of_storage
from storage.path import AnyPath, local_copy

AHEAD = 32
AHEAD_BYTES = 2**28
"""Samples, and bytes of them, that are read and wait to be decoded, at most."""


@frozen_heap()
def verify(root: AnyPath, progress: Callable[[int], None] | None = None) -> list[Finding]:
    """All errors in the dataset in `root`; empty when it is sound.

    Damaged data never raises: it is reported. When dataset.json itself is damaged, tables and samples are
    still checked against each other.

    Args:
        root: directory of the dataset.
        progress: called after each sample with the number checked so far.

    Raises:
        StorageError: the object store cannot be read, or the temporary directory is full.
    """
    findings = Findings()
    metadata: DatasetMetadata | None = None
    try:
        metadata = read_metadata(root)
    except UnsupportedVersion as error:
        return [Finding(Check.UNSUPPORTED_VERSION, DATASET_JSON, str(error))]
    except (DatasetError, OSError) as error:
        if is_of_storage(error):
            raise
        findings.add(Check.BAD_METADATA, DATASET_JSON, str(error))
    newer_minor = metadata is not None and check_version(metadata.format_version)
    stored = StoredTables(root, metadata, findings, newer_minor=newer_minor)
    entries = {entry.name: entry for entry in metadata.shards} if metadata else {}
    shards = _shards(root, metadata, findings)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        walker = _Walker(root, stored, findings, pool, progress=progress)
        for name in shards:
            walker.check(name, entries.get(name))
    walker.check_across()
    if metadata is not None:
        _check_tables(root, metadata, stored, findings)
        _check_counts(metadata, walker, stored, findings)
    return findings.found


class _Walker:
    """Reads the shards in order and collects what must agree across them."""

    def __init__(
        self,
        root: AnyPath,
        stored: StoredTables,
        findings: Findings,
        pool: Executor,
        *,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._root = root
        self._stored = stored
        self._findings = findings
        self._pool = pool
        self._found_here = Findings()
        self._decoding: deque[CheckedSample] = deque()
        self._progress = progress
        self._last: dict[Split, str] = {}
        self._at: dict[str, str] = {}
        self._of_video: dict[str, set[str]] = {}
        self.identities: Counter[Split] = Counter()
        self.splits_of_person: dict[str, set[Split]] = {}

    def check(self, name: str, entry: ShardEntry | None) -> None:
        """Check one shard from its first byte to its last."""
        try:
            with local_copy(self._root / name) as path:
                digest = self._pool.submit(_digest, path)
                try:
                    with path.open("rb") as file:
                        samples = self._check_members(name, file)
                finally:
                    self._settle(most=0)
                sha256, size = digest.result()
        except OSError as error:
            if is_of_storage(error):
                raise
            self._findings.add(Check.UNREADABLE_FILE, name, str(error))
            return
        if entry is None:
            return
        if (sha256, size) != (entry.sha256, entry.bytes):
            message = f"{size:,} bytes, sha256 {sha256}; {DATASET_JSON} lists {entry.bytes:,}, {entry.sha256}"
            self._findings.add(Check.FILE_DIGEST, name, message)
        if samples != entry.samples:
            self._findings.add(
                Check.WRONG_COUNT, name, f"holds {samples} samples, {DATASET_JSON} lists {entry.samples}"
            )

    def _check_members(self, shard: str, file: BinaryIO) -> int:
        samples = 0
        key, group = "", list[Member]()
        for item in self._members(shard, file):
            item_key, _ = split_member(item.name)
            if group and item_key != key:
                self._check_sample(shard, key, group)
                samples, group = samples + 1, []
            key = item_key
            group.append(item)
        if group:
            self._check_sample(shard, key, group)
            samples += 1
        return samples

    def _members(self, shard: str, file: BinaryIO) -> Iterator[Member]:
        for item in members(file, self._stored.members_of(shard)):
            if isinstance(item, Fault):
                where = f"{shard}:{item.name}" if item.name else shard
                self._found_here.add(item.check, where, f"{item.message} (byte {item.offset:,})")
            elif not is_member_name(item.name):
                message = "is not a member of a sample"
                self._found_here.add(Check.EXTRA_MEMBER, f"{shard}:{item.name}", message)
            else:
                yield item

    def _check_sample(self, shard: str, key: str, group: list[Member]) -> None:
        split = split_of(shard)
        where = f"{shard}:{key}"
        findings, self._found_here = self._found_here, Findings()
        if key in self._at:
            findings.add(Check.DUPLICATE_KEY, where, f"is a second sample of the key in {self._at[key]}")
        if key <= self._last.get(split, ""):
            findings.add(Check.SAMPLE_ORDER, where, f"comes after {self._last[split]}: not sorted by key")
        self._last[split] = key
        self._at.setdefault(key, shard)
        found = FoundSample(shard, split, key, group)
        checked = check_sample(found, self._stored, findings, self._pool)
        self.identities[split] += 1
        self._note(key, split, checked.record)
        self._decoding.append(checked)
        self._settle(most=AHEAD)

    def _settle(self, most: int) -> None:
        """Report on the first samples, until at most so many wait for their images; with 0, on the whole shard."""
        while len(self._decoding) > most or sum(sample.size for sample in self._decoding) > AHEAD_BYTES:
            self._findings.found += self._decoding.popleft().settled()
            if self._progress is not None:
                self._progress(self.identities.total() - len(self._decoding))
        if most == 0:
            self._findings.found += self._found_here.found
            self._found_here = Findings()

    def _note(self, key: str, split: Split, record: IdentityRecord | None) -> None:
        if record is not None:
            person, video = record.person_id, record.video_id
        elif self._stored.images is not None and (rows := self._stored.images.rows(key)):
            person, video = rows[0]["person_id"], rows[0]["video_id"]
        else:
            return
        self.splits_of_person.setdefault(person, set()).add(split)
        self._of_video.setdefault(video, set()).add(key)

    def check_across(self) -> None:
        """Report the errors that need all samples."""
        for person, splits in sorted(self.splits_of_person.items()):
            if len(splits) > 1:
                self._findings.add(Check.SPLIT_LEAKAGE, f"person:{person}", "has samples in both splits")
        for table, kind, name in (
            (self._stored.index, Check.INDEX_DISAGREES, self._stored.names[INDEX]),
            (self._stored.images, Check.IMAGES_DISAGREE, self._stored.names[IMAGES]),
        ):
            for key in table.keys() if table is not None else ():
                if key not in self._at:
                    self._findings.add(kind, f"{name}:{key}", "is a sample that no shard has")
        for video_id, video in (self._stored.videos or {}).items():
            missing = {track.key for track in video.tracks if track.key} - self._of_video.get(video_id, set())
            for key in sorted(missing):
                message = f"names sample {key}, which no shard has for it"
                where = f"{self._stored.names[VIDEOS]}:{video_id}"
                self._findings.add(Check.VIDEOS_DISAGREE, where, message)


def _digest(path: AnyPath) -> tuple[str, int]:
    """The sha256 and the size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _shards(root: AnyPath, metadata: DatasetMetadata | None, findings: Findings) -> list[str]:
    """Names of the shards to check; missing and extra files are reported.

    Files of another generation than the dataset's are leftovers of a take-down or a repair, and no error.
    """
    present = set()
    for split in Split:
        folder = root / split.value
        if folder.is_dir():
            names = (path.name for path in folder.iterdir() if not TEMPORARY.match(path.name))
            present |= {f"{split.value}/{name}" for name in names}
    for name in sorted(present):
        if not is_shard_name(name):
            findings.add(Check.EXTRA_FILE, name, "is no part of a dataset")
    shards = {name for name in present if is_shard_name(name)}
    if metadata is None:
        newest = {(split_of(name), number_of(name)): name for name in sorted(shards)}
        return sorted(newest.values())
    listed = {entry.name for entry in metadata.shards}
    if metadata.generation == 0:
        _check_numbers(listed, findings)
    for name in sorted(listed - shards):
        findings.add(Check.MISSING_FILE, name, "is not there")
    for name in sorted(shards - listed):
        if generation_of(name) == metadata.generation:
            findings.add(Check.EXTRA_FILE, name, f"is not listed in {DATASET_JSON}")
    return sorted(listed & shards)


def _check_numbers(listed: set[str], findings: Findings) -> None:
    for split in Split:
        names = {name for name in listed if split_of(name) is split}
        for expected in {shard_name(split, number) for number in range(len(names))} - names:
            findings.add(Check.BAD_METADATA, expected, f"is skipped in the numbers of {DATASET_JSON}")


def _check_tables(root: AnyPath, metadata: DatasetMetadata, stored: StoredTables, findings: Findings) -> None:
    rows = stored.rows()
    for role, name in sorted(stored.names.items()):
        entry, path = metadata.tables[role], root / name
        if not path.is_file():
            continue
        try:
            sha256, size = _digest(path)
        except OSError as error:
            if is_of_storage(error):
                raise
            findings.add(Check.UNREADABLE_FILE, name, str(error))
            continue
        if (sha256, size) != (entry.sha256, entry.bytes):
            message = f"{size:,} bytes, sha256 {sha256}; {DATASET_JSON} lists {entry.bytes:,}, {entry.sha256}"
            findings.add(Check.FILE_DIGEST, name, message)
        if rows[role] not in {None, entry.rows}:
            findings.add(Check.WRONG_COUNT, name, f"has {rows[role]} rows, {DATASET_JSON} lists {entry.rows}")


def _check_counts(
    metadata: DatasetMetadata, walker: _Walker, stored: StoredTables, findings: Findings
) -> None:
    counts = metadata.counts
    identities = {split: walker.identities[split] for split in Split}
    pairs: list[tuple[str, object, object]] = [
        ("identities", counts.identities, identities),
        ("images", counts.images, IMAGES_PER_IDENTITY * sum(identities.values())),
        ("persons", counts.persons, len(walker.splits_of_person)),
    ]
    if stored.videos is not None:
        pairs.append(("videos", counts.videos, stored.videos_by_status()))
    for name, stated, counted in pairs:
        if stated != counted:
            findings.add(
                Check.WRONG_COUNT, f"{DATASET_JSON}:counts.{name}", f"is {stated}, counted {counted}"
            )
    for entry in metadata.shards:
        over = entry.samples > metadata.limits.max_samples or (
            entry.samples > 1 and entry.bytes > metadata.limits.max_bytes
        )
        if over:
            findings.add(Check.WRONG_COUNT, entry.name, f"is larger than the limits in {DATASET_JSON} allow")
