"""Writes a dataset: shards in canonical order, the tables, and dataset.json last.

The output does not depend on the clock, the machine or earlier files of the directory, so equal samples give equal
bytes. A directory has no dataset.json from the first change until all other files are complete on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from shards.atomic import (
    TEMPORARY,
    open_atomic,
    remove_file,
    remove_files,
    remove_temporaries,
    write_bytes,
)
from shards.canonical import model_json
from shards.layout import (
    DATASET_JSON,
    IMAGES,
    INDEX,
    VIDEOS,
    is_shard_name,
    is_table_name,
    shard_name,
    table_name,
)
from shards.metadata import (
    Counts,
    DatasetMetadata,
    Provenance,
    ShardEntry,
    ShardLimits,
    TableEntry,
    encode_metadata,
)
from shards.record_checks import validate_record, validate_sample, validate_video
from shards.sample import Sample
from shards.schema import FORMAT_VERSION, IMAGES_PER_IDENTITY, IdentityRecord, Split, Status, VideoOutcome
from shards.shard_file import ShardFile
from shards.tables import SCHEMAS, Row, RowWriter, image_rows, open_rows, video_row
from shards.tar import BLOCK, archive_size, padded
from storage.ahead import map_ahead
from storage.path import AnyPath, ObjectPath

AHEAD = 8
"""Samples whose files are checked and wait to be written, at most."""


def write_dataset(
    root: AnyPath,
    samples: Iterable[Sample],
    videos: Sequence[VideoOutcome],
    provenance: Provenance,
    limits: ShardLimits,
    *,
    name: str = "mfhq",
    version: str = "1.0.0",
    progress: Callable[[int], None] | None = None,
    check_lock: Callable[[], None] = lambda: None,
) -> DatasetMetadata:
    """Write a whole dataset into `root`, in place of one that is there.

    Args:
        root: made when missing. Files that are not part of a dataset stay, except that `train` and `test` must
            contain no others.
        samples: sorted by (split, key), so `test` before `train`; read once, `AHEAD` held in memory.
        videos: one outcome for each input video, in any order.
        provenance: how the samples were made.
        limits: where to cut shards.
        name: of the dataset; it does not change the names of files.
        version: of the dataset, a semantic version.
        progress: called after each sample with the number written so far.
        check_lock: called before anything is removed, after each sample and before dataset.json is written; raises
            once another writer has `root`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: samples or videos contradict their records, each other or the order. `root` then contains no
            dataset, unless the error is in `videos`, which are checked before any change.
        FileExistsError: `train` or `test` contains files that are not shards.
        OutOfSpace: the disk or the quota is full.
    """
    by_id = _checked_videos(videos)
    model_json(provenance)
    check_lock()
    _clear(root)
    tally = _Tally()
    shards: list[ShardEntry] = []
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        open_rows(root / table_name(INDEX), SCHEMAS[INDEX]) as index,
        open_rows(root / table_name(IMAGES), SCHEMAS[IMAGES]) as images,
    ):
        placed = _place(_checked_samples(samples, by_id, tally, pool), limits)
        for shard, group in groupby(placed, key=lambda item: item[0]):
            with open_atomic(root / shard) as file:
                tar = ShardFile(file, shard)
                for _, sample in group:
                    index.add(tar.add(sample.record.key, sample.members))
                    _add_all(images, image_rows(sample.record))
                    tally.written += 1
                    check_lock()
                    if progress is not None:
                        progress(tally.written)
                shards.append(tar.end())
        tally.check_complete(by_id)
    with open_rows(root / table_name(VIDEOS), SCHEMAS[VIDEOS]) as rows:
        _add_all(rows, (video_row(by_id[video_id]) for video_id in sorted(by_id)))
    written = {INDEX: index.rows, IMAGES: images.rows, VIDEOS: rows.rows}
    statuses = Counter(video.status for video in videos)
    metadata = DatasetMetadata(
        name=name,
        version=version,
        limits=limits,
        counts=Counts(
            videos={status: statuses[status] for status in Status},
            identities={split: tally.identities[split] for split in Split},
            images=tally.written * IMAGES_PER_IDENTITY,
            persons=len(tally.persons),
        ),
        shards=shards,
        tables={role: table_entry(root, table_name(role), count) for role, count in written.items()},
        provenance=provenance,
    )
    check_lock()
    _commit(root / DATASET_JSON, encode_metadata(metadata))
    return metadata


def _commit(path: AnyPath, data: bytes) -> None:
    """Write dataset.json, which makes the dataset whole; in an object store, only where there is none.

    Raises:
        FileExistsError: another writer was faster.
    """
    if not isinstance(path, ObjectPath):
        write_bytes(path, data)
    elif path.bucket.create(path.key, data) is None:
        raise FileExistsError(
            errno.EEXIST, "another build has written its dataset there in the meantime", str(path)
        )


@dataclass(frozen=True)
class _Encoded:
    record: IdentityRecord
    members: list[tuple[str, bytes]]

    @property
    def length(self) -> int:
        return sum(BLOCK + padded(len(data)) for _, data in self.members)


class _Tally:
    """Counts of what was written so far, and the data for the checks across samples."""

    def __init__(self) -> None:
        self.written = 0
        self.identities: Counter[Split] = Counter()
        self.persons: set[str] = set()
        self.of_video: Counter[str] = Counter()
        self._test_keys: set[str] = set()
        self._test_persons: set[str] = set()
        self._last: tuple[str, str] | None = None

    def admit(self, record: IdentityRecord) -> None:
        """Add a record.

        Raises:
            ValueError: out of order, or its key or person is taken.
        """
        place = (record.split.value, record.key)
        if self._last is not None and place <= self._last:
            what = (
                "occurs twice" if place == self._last else f"comes after {self._last}: sort by (split, key)"
            )
            raise ValueError(f"sample {place} {what}")
        self._last = place
        if record.split is Split.TEST:
            self._test_keys.add(record.key)
            self._test_persons.add(record.person_id)
        elif record.key in self._test_keys:
            raise ValueError(f"sample key {record.key} occurs in both splits")
        elif record.person_id in self._test_persons:
            raise ValueError(f"sample {record.key}: person {record.person_id} is in both splits")
        self.identities[record.split] += 1
        self.persons.add(record.person_id)
        self.of_video[record.video_id] += 1

    def check_complete(self, videos: dict[str, VideoOutcome]) -> None:
        """Check that every sample of an outcome was written.

        Raises:
            ValueError: naming the first video that lacks one.
        """
        for video_id, video in sorted(videos.items()):
            if self.of_video[video_id] != video.identities:
                raise ValueError(
                    f"video {video_id} has {video.identities} identities in its outcome, "
                    f"but {self.of_video[video_id]} samples came"
                )


def _checked_videos(videos: Sequence[VideoOutcome]) -> dict[str, VideoOutcome]:
    by_id: dict[str, VideoOutcome] = {}
    for video in videos:
        if video.video_id in by_id:
            raise ValueError(f"video {video.video_id} has more than one outcome")
        if errors := validate_video(video):
            raise ValueError(f"video {video.video_id}: {'; '.join(errors)}")
        by_id[video.video_id] = video
    return by_id


def _checked_samples(
    samples: Iterable[Sample], videos: dict[str, VideoOutcome], tally: _Tally, pool: Executor
) -> Iterator[_Encoded]:
    for sample, error in map_ahead(_checked_files, samples, pool, AHEAD):
        record = sample.record
        if record.format_version != FORMAT_VERSION:
            raise ValueError(
                f"sample {record.key}: format version {record.format_version}, not {FORMAT_VERSION}"
            )
        tally.admit(record)
        video = videos.get(record.video_id)
        if video is None:
            raise ValueError(f"sample {record.key}: its video {record.video_id} has no outcome")
        if errors := validate_record(record) + validate_sample(record, video):
            raise ValueError(f"sample {record.key}: {'; '.join(errors)}")
        if error is not None:
            raise error
        yield _Encoded(record, list(sample.members()))


def _checked_files(sample: Sample) -> tuple[Sample, ValueError | None]:
    """The sample, and what is wrong with its files: errors of its place and its record come first."""
    try:
        sample.check()
    except ValueError as error:
        return sample, error
    return sample, None


def _place(samples: Iterable[_Encoded], limits: ShardLimits) -> Iterator[tuple[str, _Encoded]]:
    """Give each sample its shard: a pure function of the samples' order and sizes."""
    split: Split | None = None
    number = count = size = 0
    for sample in samples:
        full = count >= limits.max_samples or archive_size(size + sample.length) > limits.max_bytes
        if sample.record.split is not split:
            split, number, count, size = sample.record.split, 0, 0, 0
        elif full:
            number, count, size = number + 1, 0, 0
        count += 1
        size += sample.length
        yield shard_name(split, number), sample


def _clear(root: AnyPath) -> None:
    """Remove the files of an earlier or an interrupted pack, dataset.json first."""
    names = []
    for split in Split:
        folder = root / split.value
        for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
            if is_shard_name(f"{split.value}/{name}"):
                names.append(f"{split.value}/{name}")
            elif not TEMPORARY.match(name):
                raise FileExistsError(
                    f"{folder / name} is no part of a dataset: move it away or choose another output directory"
                )
    if root.is_dir():
        remove_file(root / DATASET_JSON)
        names += [path.name for path in root.iterdir() if is_table_name(path.name)]
    for folder in (root, *(root / split.value for split in Split)):
        remove_temporaries(folder)
    remove_files(root, names)


def _add_all(writer: RowWriter, rows: Iterable[Row]) -> None:
    for row in rows:
        writer.add(row)


def table_entry(root: AnyPath, name: str, rows: int) -> TableEntry:
    """The entry in the metadata of a table that was written."""
    with (root / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return TableEntry(name=name, sha256=digest.hexdigest(), bytes=file.tell(), rows=rows)
