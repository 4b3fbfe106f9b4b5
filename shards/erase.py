"""Erases samples from a dataset that readers may be using: the next generation does not contain them.

The shards that change and all tables are written under names of the next generation, beside the old ones;
replacing dataset.json commits. A process that dies before leaves the dataset unchanged, with files that no reader
opens.
The erased bytes stay on the disk until `remove_superseded`, so that readers of the old generation can finish.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shards.assemble import table_entry
from shards.atomic import open_atomic, remove_temporaries, sync_folder, write_bytes
from shards.canonical import sha256_hex
from shards.layout import (
    DATASET_JSON,
    IMAGES,
    INDEX,
    TOMBSTONES,
    VIDEOS,
    generation_of,
    is_shard_name,
    is_table_name,
    number_of,
    shard_name,
    table_name,
)
from shards.metadata import Counts, DatasetError, DatasetMetadata, ShardEntry, TableEntry, encode_metadata
from shards.reader import Dataset, read_metadata
from shards.schema import (
    FAILURES,
    FORMAT_VERSION,
    IMAGES_PER_IDENTITY,
    REASON_PATTERN,
    Split,
    Status,
    VideoOutcome,
)
from shards.shard_file import ShardFile
from shards.tables import SCHEMAS, Row, open_rows, rows_of, video_row


def erase(root: Path, keys: Collection[str], reason: str) -> DatasetMetadata:
    """Move the dataset in `root` to its next generation, without some of its samples.

    Only one process may change a dataset at a time. Copies outside of the dataset's own files (the report, staged
    results, caches) stay as they are.

    Args:
        root: directory of the dataset.
        keys: of the samples.
        reason: why, for the tombstones and the videos: `^[a-z][a-z0-9_]{0,39}$`, and no reason of a failure.

    Returns:
        The new content of dataset.json.

    Raises:
        KeyError: the dataset has no such sample; nothing was changed.
        ValueError: `keys` is empty or `reason` is no such name; nothing was changed.
        DatasetError: the dataset is damaged, of another version of the format, or was changed by another process.
        OutOfSpace: the disk is full; the dataset is unchanged.
    """
    dataset = Dataset.open(root)
    before = dataset.metadata
    _check(dataset, keys, reason)
    generation = before.generation + 1
    _remove(root, lambda name: generation_of(name) > before.generation)
    erased = frozenset(keys)
    videos = [_outcome_without(video, erased, reason) for video in dataset.videos()]
    images = dataset.images()
    images = images.filter(pc.invert(pc.is_in(images["key"], pa.array(sorted(erased)))))
    shards, rewritten = _rewrite_shards(dataset, erased, generation)
    tables: dict[str, Iterable[Row]] = {
        INDEX: _index_rows(dataset, rewritten),
        IMAGES: rows_of(images),
        VIDEOS: map(video_row, videos),
        TOMBSTONES: _tombstones(dataset, erased, generation, reason),
    }
    metadata = before.model_copy(
        update={
            "generation": generation,
            "counts": _counts(shards, images, videos),
            "shards": shards,
            "tables": {role: _write_table(root, role, generation, rows) for role, rows in tables.items()},
        }
    )
    if read_metadata(root) != before:
        raise DatasetError(f"{root} was changed by another process. Run the same command again")
    write_bytes(root / DATASET_JSON, encode_metadata(metadata))
    return metadata


def remove_superseded(root: Path) -> list[Path]:
    """Remove the shards and tables that dataset.json does not list, and temporary files.

    Readers of an older generation fail from then on, so give them time to finish.

    Returns:
        The removed files, sorted.

    Raises:
        DatasetError: `root` is no dataset, or one of another major version of the format.
    """
    listed = read_metadata(root).files()
    removed = _remove(root, lambda name: name not in listed)
    for directory in _directories(root):
        removed += remove_temporaries(directory)
    return sorted(removed)


def _check(dataset: Dataset, keys: Collection[str], reason: str) -> None:
    version = dataset.metadata.format_version
    if version != FORMAT_VERSION:
        raise DatasetError(
            f"the dataset has format version {version}; this software writes {FORMAT_VERSION}. Update this "
            "software"
        )
    if not keys:
        raise ValueError("no keys to erase. Pass at least one")
    if not re.fullmatch(REASON_PATTERN, reason) or reason in FAILURES:
        raise ValueError(
            f"reason {reason!r} cannot be that of an erasure. Pass up to 40 lower-case letters, digits and "
            "underscores that name no failure, such as taken_down"
        )
    for key in sorted(keys):
        dataset.locate(key)


def _rewrite_shards(
    dataset: Dataset, erased: frozenset[str], generation: int
) -> tuple[list[ShardEntry], dict[str, list[Row]]]:
    """Entries of the next generation's shards; rows of the index of those that were rewritten, by old name."""
    touched = {dataset.locate(key).shard for key in erased}
    shards: list[ShardEntry] = []
    rewritten: dict[str, list[Row]] = {}
    for entry in dataset.metadata.shards:
        if entry.name not in touched:
            shards.append(entry)
            continue
        keys = dataset.index.filter(pc.equal(dataset.index["shard"], entry.name))["key"].to_pylist()
        kept = [key for key in keys if key not in erased]
        rewritten[entry.name] = []
        if kept:
            name = shard_name(entry.split, number_of(entry.name), generation)
            with open_atomic(dataset.root / name) as file:
                shard = ShardFile(file, name)
                rewritten[entry.name] = [shard.add(key, dataset.sample(key).members()) for key in kept]
                shards.append(shard.end())
    return shards, rewritten


def _index_rows(dataset: Dataset, rewritten: Mapping[str, list[Row]]) -> Iterator[Row]:
    for entry in dataset.metadata.shards:
        if entry.name in rewritten:
            yield from rewritten[entry.name]
        else:
            yield from rows_of(dataset.index.filter(pc.equal(dataset.index["shard"], entry.name)))


def _outcome_without(video: VideoOutcome, erased: frozenset[str], reason: str) -> VideoOutcome:
    if not any(track.key in erased for track in video.tracks):
        return video
    tracks = [
        track.model_copy(update={"key": None, "reason": reason, "detail": None})
        if track.key in erased
        else track
        for track in video.tracks
    ]
    left = sum(track.key is not None for track in tracks)
    update: dict[str, object] = {"tracks": tracks, "identities": left}
    if not left:
        update |= {"status": Status.REJECTED, "reason": reason, "detail": None}
    return video.model_copy(update=update)


def _tombstones(dataset: Dataset, erased: frozenset[str], generation: int, reason: str) -> list[Row]:
    rows = {row["key_sha256"]: row for row in rows_of(dataset.tombstones())}
    for key in erased:
        digest = sha256_hex(key.encode())
        rows[digest] = {"key_sha256": digest, "generation": generation, "reason": str(reason)}
    return [rows[digest] for digest in sorted(rows)]


def _counts(shards: list[ShardEntry], images: pa.Table, videos: list[VideoOutcome]) -> Counts:
    statuses = Counter(video.status for video in videos)
    identities = {split: sum(s.samples for s in shards if s.split is split) for split in Split}
    return Counts(
        videos={status: statuses[status] for status in Status},
        identities=identities,
        images=IMAGES_PER_IDENTITY * sum(identities.values()),
        persons=pc.count_distinct(images["person_id"]).as_py(),
    )


def _write_table(root: Path, role: str, generation: int, rows: Iterable[Row]) -> TableEntry:
    name = table_name(role, generation)
    with open_rows(root / name, SCHEMAS[role]) as writer:
        for row in rows:
            writer.add(row)
    return table_entry(root, name, writer.rows)


def _remove(root: Path, unwanted: Callable[[str], bool]) -> list[Path]:
    """Remove shards and tables by their names, relative to the root."""
    removed = []
    for directory in _directories(root):
        for path in sorted(directory.iterdir()):
            name = path.relative_to(root).as_posix()
            if (is_shard_name(name) or is_table_name(name)) and unwanted(name):
                path.unlink()
                removed.append(path)
        sync_folder(directory)
    return removed


def _directories(root: Path) -> list[Path]:
    return [path for path in (root, *(root / split.value for split in Split)) if path.is_dir()]
