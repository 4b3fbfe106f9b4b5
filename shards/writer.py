"""Writes a dataset: shards in canonical order, the three tables, and dataset.json last.

Nothing here depends on the clock, the machine or what stood in the folder before, so equal samples give equal
bytes. A folder has no dataset.json from the first change until all else is on the disk under its final name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from shards.atomic import TEMPORARY, open_atomic, remove_file, remove_temporaries, write_bytes
from shards.canonical import model_json, sha256_hex
from shards.layout import DATASET_JSON, IMAGES, INDEX, TABLES, VIDEOS, is_shard_name, shard_name
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
from shards.tables import (
    IMAGES_SCHEMA,
    INDEX_SCHEMA,
    VIDEOS_SCHEMA,
    Row,
    RowWriter,
    image_rows,
    open_rows,
    video_row,
)
from shards.ustar import BLOCK, END, header, padding


def write_dataset(
    root: Path,
    samples: Iterable[Sample],
    videos: Sequence[VideoOutcome],
    provenance: Provenance,
    limits: ShardLimits,
    *,
    name: str = "mfhq",
    progress: Callable[[int], None] | None = None,
) -> DatasetMetadata:
    """Write a whole dataset into `root`, in place of one that is there.

    Args:
        root: made when missing. Files that are no part of a dataset stay, except that `train` and `test` may
            hold nothing else.
        samples: sorted by (split, key), so `test` before `train`; read once, two held in memory at most.
        videos: one outcome for each input video, in any order.
        provenance: what made the samples.
        limits: where to cut shards.
        name: of the dataset; it does not change the names of files.
        progress: called after each sample with the number written so far.

    Returns:
        What dataset.json says.

    Raises:
        ValueError: samples or videos contradict their records, each other or the order; `root` then holds no
            dataset, unless the fault was found in `videos`, which is before anything is touched.
        FileExistsError: `train` or `test` holds files that are no shards.
        OutOfSpace: the disk or the quota is full.
    """
    by_id = _checked_videos(videos)
    model_json(provenance)
    _clear(root)
    tally = _Tally()
    shards: list[ShardEntry] = []
    with (
        open_rows(root / INDEX, INDEX_SCHEMA) as index,
        open_rows(root / IMAGES, IMAGES_SCHEMA) as images,
    ):
        placed = _place(_checked_samples(samples, by_id, tally), limits)
        for shard, group in groupby(placed, key=lambda item: item[0]):
            with open_atomic(root / shard) as file:
                tar = _Tar(file, shard)
                for _, sample in group:
                    index.add(tar.add(sample))
                    _add_all(images, image_rows(sample.record))
                    tally.written += 1
                    if progress is not None:
                        progress(tally.written)
                shards.append(tar.end())
        tally.check_complete(by_id)
    with open_rows(root / VIDEOS, VIDEOS_SCHEMA) as rows:
        _add_all(rows, (video_row(by_id[video_id]) for video_id in sorted(by_id)))
    table_rows = {INDEX: index.rows, IMAGES: images.rows, VIDEOS: rows.rows}
    statuses = Counter(video.status for video in videos)
    metadata = DatasetMetadata(
        name=name,
        limits=limits,
        counts=Counts(
            videos={status: statuses[status] for status in Status},
            identities={split: tally.identities[split] for split in Split},
            images=tally.written * IMAGES_PER_IDENTITY,
            persons=len(tally.persons),
        ),
        shards=shards,
        tables={table: _table_entry(root / table, table_rows[table]) for table in TABLES},
        provenance=provenance,
    )
    write_bytes(root / DATASET_JSON, encode_metadata(metadata))
    return metadata


@dataclass(frozen=True)
class _Encoded:
    record: IdentityRecord
    members: list[tuple[str, bytes]]

    @property
    def length(self) -> int:
        return sum(BLOCK + len(data) + padding(len(data)) for _, data in self.members)


class _Tally:
    """What was written so far, as far as the metadata and the checks across samples need it."""

    def __init__(self) -> None:
        self.written = 0
        self.identities: Counter[Split] = Counter()
        self.persons: set[str] = set()
        self.of_video: Counter[str] = Counter()
        self._test_keys: set[str] = set()
        self._test_persons: set[str] = set()
        self._last: tuple[str, str] | None = None

    def admit(self, record: IdentityRecord) -> None:
        """Take a record in.

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
        """Every sample that an outcome names must have come.

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
    samples: Iterable[Sample], videos: dict[str, VideoOutcome], tally: _Tally
) -> Iterator[_Encoded]:
    for sample in samples:
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
        sample.check()
        yield _Encoded(record, list(sample.members()))


def _place(samples: Iterable[_Encoded], limits: ShardLimits) -> Iterator[tuple[str, _Encoded]]:
    """Give each sample its shard: a pure function of the samples' order and sizes."""
    split: Split | None = None
    number = count = size = 0
    for sample in samples:
        full = count >= limits.max_samples or size + sample.length + len(END) > limits.max_bytes
        if sample.record.split is not split:
            split, number, count, size = sample.record.split, 0, 0, 0
        elif full:
            number, count, size = number + 1, 0, 0
        count += 1
        size += sample.length
        yield shard_name(split, number), sample


class _Tar:
    """Appends samples to an open shard."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._hash = hashlib.sha256()
        self._offset = 0
        self._samples = 0
        self._split = Split(name.split("/", 1)[0])

    def add(self, sample: _Encoded) -> Row:
        """Write one sample; returns its row of the index."""
        start = self._offset
        members = []
        for field, data in sample.members:
            name = f"{sample.record.key}.{field}"
            self._write(header(name, len(data)))
            members.append({"name": name, "offset": self._offset, "size": len(data)})
            self._write(data)
            self._write(bytes(padding(len(data))))
        self._samples += 1
        return {
            "key": sample.record.key,
            "split": sample.record.split.value,
            "shard": self._name,
            "offset": start,
            "length": self._offset - start,
            "json_sha256": sha256_hex(sample.members[-1][1]),
            "members": members,
        }

    def end(self) -> ShardEntry:
        """Write the end of the archive; returns the shard's entry in the metadata."""
        self._write(END)
        return ShardEntry(
            name=self._name,
            split=self._split,
            sha256=self._hash.hexdigest(),
            bytes=self._offset,
            samples=self._samples,
        )

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._offset += len(data)


def _clear(root: Path) -> None:
    """Remove what an earlier or an interrupted pack left, dataset.json first."""
    folders = [root / split.value for split in Split]
    shards: list[Path] = []
    for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())):
        if is_shard_name(path.relative_to(root).as_posix()):
            shards.append(path)
        elif not TEMPORARY.match(path.name):
            raise FileExistsError(
                f"{path} is no part of a dataset: move it away or choose another output folder"
            )
    if root.is_dir():
        remove_file(root / DATASET_JSON)
    for folder in (root, *folders):
        remove_temporaries(folder)
    for path in [*shards, *(root / table for table in TABLES)]:
        path.unlink(missing_ok=True)


def _add_all(writer: RowWriter, rows: Iterable[Row]) -> None:
    for row in rows:
        writer.add(row)


def _table_entry(path: Path, rows: int) -> TableEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return TableEntry(sha256=digest.hexdigest(), bytes=path.stat().st_size, rows=rows)
