"""Checks a dataset from end to end, and reports all errors, not only the first.

Each byte is covered: tar headers, padding and ends must be the canonical ones, images and masks match the
digests in their records, records match the index, tables match dataset.json, and dataset.json its own digest.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shards.atomic import TEMPORARY
from shards.findings import Check, Finding, Findings
from shards.heap import frozen_heap
from shards.layout import (
    DATASET_JSON,
    IMAGES,
    INDEX,
    VIDEOS,
    generation_of,
    is_shard_name,
    number_of,
    shard_name,
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
from shards.schema import IMAGES_PER_IDENTITY, Split
from shards.shard_check import (
    SeenShard,
    ShardCheck,
    check_shard,
    check_shard_alone,
    file_digest,
    threads,
)
from shards.stored_tables import StoredTables
from storage.errors import is_of_storage
from storage.path import AnyPath
from storage.scratch import scratch_folder

RunTasks = Callable[[Callable[[ShardCheck], SeenShard | None], Iterable[ShardCheck]], "Results"]
"""Runs a function on each of some items, wherever; gives the results as they come, each with its item's number."""
Results = Iterator[tuple[int, SeenShard | None]]

OF_ITS_MACHINE = frozenset({Check.UNREADABLE_FILE, Check.FILE_DIGEST})
"""What a lost mount or a bad disk of the machine that reads looks like, so this process reads as well."""


@frozen_heap()
def verify(
    root: AnyPath, progress: Callable[[int], None] | None = None, run: RunTasks | None = None
) -> list[Finding]:
    """All errors in the dataset in `root`; empty when it is sound.

    Damaged data never raises: it is reported. When dataset.json itself is damaged, tables and samples are
    still checked against each other.

    Args:
        root: directory of the dataset.
        progress: called after each sample, or each shard, with the number of samples checked so far.
        run: checks shards elsewhere; in threads of this process when None.

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
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        newer_minor = metadata is not None and check_version(metadata.format_version)
        stored = StoredTables(root, metadata, findings, newer_minor=newer_minor, scratch=Path(scratch))
        _check_all(root, metadata, stored, findings, progress=progress or (lambda _: None), run=run)
    return findings.found


def _check_all(
    root: AnyPath,
    metadata: DatasetMetadata | None,
    stored: StoredTables,
    findings: Findings,
    *,
    progress: Callable[[int], None],
    run: RunTasks | None,
) -> None:
    entries = {entry.name: entry for entry in metadata.shards} if metadata else {}
    shards = _shards(root, metadata, findings)
    across = _Across(stored, findings)
    here = _Here(root, stored, entries, progress)
    seen = here.seen(shards) if run is None or stored.index is None else _seen_elsewhere(shards, here, run)
    for name, shard in zip(shards, seen, strict=True):
        across.add(name, shard)
    across.check()
    if metadata is not None:
        _check_tables(root, metadata, stored, findings)
        _check_counts(metadata, across, stored, findings)


class _Here:
    """Checks shards in threads of this process.

    Args:
        root: of the dataset.
        stored: its tables.
        entries: of dataset.json, by name of the shard.
        progress: called with the number of samples checked so far.
    """

    def __init__(
        self,
        root: AnyPath,
        stored: StoredTables,
        entries: Mapping[str, ShardEntry],
        progress: Callable[[int], None],
    ) -> None:
        self._root, self._stored, self._entries, self._progress = root, stored, entries, progress
        self._done = 0

    def seen(self, shards: Iterable[str]) -> Iterator[SeenShard]:
        """Check shards one after another."""
        with ThreadPoolExecutor(threads()) as pool:
            for name in shards:
                entry = self._entries.get(name)
                yield check_shard(
                    self._root, name, self._stored, pool, entry=entry, settled=lambda: self.count(1)
                )

    def count(self, samples: int) -> None:
        """Note that samples are checked."""
        self._done += samples
        self._progress(self._done)

    def tasks(self, shards: Iterable[str]) -> Iterator[ShardCheck]:
        """What checks the shards elsewhere, made one after another."""
        for name in shards:
            yield ShardCheck(self._root, name, self._entries.get(name), self._stored.of_shard(name))


def _seen_elsewhere(shards: list[str], here: _Here, run: RunTasks) -> Iterator[SeenShard]:
    """Check shards by tasks, in any order; the results in the order of `shards`."""
    waiting: dict[int, SeenShard] = {}
    following = 0
    for number, found in run(check_shard_alone, here.tasks(shards)):
        if found is None or any(finding.check in OF_ITS_MACHINE for finding in found.findings):
            # Rows that belong elsewhere are needed, and all of them are here; or only one machine reads badly.
            waiting[number] = next(here.seen([shards[number]]))
        else:
            here.count(len(found.samples))
            waiting[number] = found
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class _Across:
    """Collects what must agree across shards, which come in their order."""

    def __init__(self, stored: StoredTables, findings: Findings) -> None:
        self._stored = stored
        self._findings = findings
        self._last: dict[Split, str] = {}
        self._at: dict[str, str] = {}
        self._videos: dict[str, tuple[str, ...]] = {}
        self.identities: Counter[Split] = Counter()
        self.persons: dict[str, Split] = {}
        self._in_both: set[str] = set()

    def add(self, shard: str, seen: SeenShard) -> None:
        """Add a shard, with what was found in it."""
        split = split_of(shard)
        for sample in seen.samples:
            key, where = sample.key, f"{shard}:{sample.key}"
            self._findings.found += sample.faults
            if key in self._at:
                message = f"is a second sample of the key in {self._at[key]}"
                self._findings.add(Check.DUPLICATE_KEY, where, message)
            if key <= self._last.get(split, ""):
                message = f"comes after {self._last[split]}: not sorted by key"
                self._findings.add(Check.SAMPLE_ORDER, where, message)
            self._findings.found += sample.findings
            self._last[split] = key
            self._at.setdefault(key, shard)
            self.identities[split] += 1
            if sample.person_id is not None and sample.video_id is not None:
                if self.persons.setdefault(sample.person_id, split) is not split:
                    self._in_both.add(sample.person_id)
                self._videos[key] = (*self._videos.get(key, ()), sample.video_id)
        self._findings.found += seen.findings

    def check(self) -> None:
        """Report the errors that need all samples."""
        for person in sorted(self._in_both):
            self._findings.add(Check.SPLIT_LEAKAGE, f"person:{person}", "has samples in both splits")
        for table, kind, name in (
            (self._stored.index, Check.INDEX_DISAGREES, self._stored.names[INDEX]),
            (self._stored.images, Check.IMAGES_DISAGREE, self._stored.names[IMAGES]),
        ):
            for key in table.keys() if table is not None else ():
                if key not in self._at:
                    self._findings.add(kind, f"{name}:{key}", "is a sample that no shard has")
        videos = self._stored.videos
        for video_id, keys in videos.samples() if videos is not None else ():
            for key in sorted(keys):
                if video_id in self._videos.get(key, ()):
                    continue
                message = f"names sample {key}, which no shard has for it"
                where = f"{self._stored.names[VIDEOS]}:{video_id}"
                self._findings.add(Check.VIDEOS_DISAGREE, where, message)


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
            sha256, size = file_digest(path)
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
    metadata: DatasetMetadata, across: _Across, stored: StoredTables, findings: Findings
) -> None:
    counts = metadata.counts
    identities = {split: across.identities[split] for split in Split}
    pairs: list[tuple[str, object, object]] = [
        ("identities", counts.identities, identities),
        ("images", counts.images, IMAGES_PER_IDENTITY * sum(identities.values())),
        ("persons", counts.persons, len(across.persons)),
    ]
    if stored.videos is not None:
        pairs.append(("videos", counts.videos, stored.videos.by_status()))
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
