"""Makes a dataset of shards that are written: the tables in canonical order, and dataset.json last."""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa

from shards.atomic import TEMPORARY, remove_file, remove_files, remove_temporaries, write_bytes
from shards.layout import (
    DATASET_JSON,
    IMAGES,
    INDEX,
    VIDEOS,
    is_shard_name,
    is_table_name,
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
from shards.schema import IMAGES_PER_IDENTITY, Split, Status
from shards.tables import SCHEMAS, open_rows
from shards.write_shard import ShardPart
from storage.path import AnyPath, ObjectPath


@dataclass(frozen=True)
class Description:
    """What dataset.json says of a dataset beside its content.

    Attributes:
        provenance: how the samples were made.
        limits: where shards are cut.
        name: of the dataset; it does not change the names of files.
        version: of the dataset, a semantic version.
    """

    provenance: Provenance
    limits: ShardLimits
    name: str = "mfhq"
    version: str = "1.0.0"


class Tally:
    """Counts of the samples so far, and the data for the checks across them."""

    def __init__(self) -> None:
        self.identities: Counter[Split] = Counter()
        self.persons: set[str] = set()
        self._of_video: Counter[str] = Counter()
        self._test_keys: set[str] = set()
        self._test_persons: set[str] = set()
        self._last: tuple[str, str] | None = None

    def admit(self, split: Split, key: str, person_id: str, video_id: str) -> None:
        """Add a sample.

        Raises:
            ValueError: out of order, or its key or person is taken.
        """
        place = (split.value, key)
        if self._last is not None and place <= self._last:
            what = (
                "occurs twice" if place == self._last else f"comes after {self._last}: sort by (split, key)"
            )
            raise ValueError(f"sample {place} {what}")
        self._last = place
        if split is Split.TEST:
            self._test_keys.add(key)
            self._test_persons.add(person_id)
        elif key in self._test_keys:
            raise ValueError(f"sample key {key} occurs in both splits")
        elif person_id in self._test_persons:
            raise ValueError(f"sample {key}: person {person_id} is in both splits")
        self.identities[split] += 1
        self.persons.add(person_id)
        self._of_video[video_id] += 1

    def admit_part(self, part: ShardPart) -> None:
        """Add the samples of a part.

        Raises:
            ValueError: as `admit`.
        """
        images = part.images.take(pa.array(range(0, len(part.images), IMAGES_PER_IDENTITY), pa.int64()))
        columns = (images[name].to_pylist() for name in ("key", "person_id", "video_id"))
        for key, person_id, video_id in zip(*columns, strict=True):
            self.admit(part.entry.split, key, person_id, video_id)

    def check_video(self, video_id: str, identities: int) -> None:
        """Check that every sample of an outcome was added.

        Raises:
            ValueError: there are fewer or more.
        """
        if self._of_video[video_id] != identities:
            raise ValueError(
                f"video {video_id} has {identities} identities in its outcome, "
                f"but {self._of_video[video_id]} samples came"
            )


def assemble(
    root: AnyPath,
    parts: Iterable[ShardPart],
    videos: Iterable[pa.Table],
    tally: Tally,
    description: Description,
    *,
    check_lock: Callable[[], None] = lambda: None,
) -> DatasetMetadata:
    """Write the tables and dataset.json; memory is that of a part and a group of rows.

    Args:
        root: of the dataset. It has no dataset.json.
        parts: of the shards, sorted by name; taken one by one, while the tables are open.
        videos: rows of the videos table, sorted by video_id.
        tally: has all samples of a part by the time that the part is taken.
        description: of the dataset.
        check_lock: called before dataset.json is written; raises once another writer has `root`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: videos contradict the samples. `root` then contains no dataset.
        FileExistsError: another writer has put its dataset there.
        OutOfSpace: the disk or the quota is full.
    """
    shards: list[ShardEntry] = []
    with (
        open_rows(root / table_name(INDEX), SCHEMAS[INDEX]) as index,
        open_rows(root / table_name(IMAGES), SCHEMAS[IMAGES]) as images,
    ):
        for part in parts:
            index.add_table(part.index)
            images.add_table(part.images)
            shards.append(part.entry)
    statuses: Counter[str] = Counter()
    with open_rows(root / table_name(VIDEOS), SCHEMAS[VIDEOS]) as rows:
        for table in videos:
            for video_id, count in zip(
                table["video_id"].to_pylist(), table["identities"].to_pylist(), strict=True
            ):
                tally.check_video(video_id, count)
            statuses.update(table["status"].to_pylist())
            rows.add_table(table)
    written = {INDEX: index.rows, IMAGES: images.rows, VIDEOS: rows.rows}
    metadata = DatasetMetadata(
        name=description.name,
        version=description.version,
        limits=description.limits,
        counts=Counts(
            videos={status: statuses[status] for status in Status},
            identities={split: tally.identities[split] for split in Split},
            images=tally.identities.total() * IMAGES_PER_IDENTITY,
            persons=len(tally.persons),
        ),
        shards=shards,
        tables={role: table_entry(root, table_name(role), count) for role, count in written.items()},
        provenance=description.provenance,
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


def clear(root: AnyPath, keep: Collection[str] = ()) -> None:
    """Remove the files of an earlier or an interrupted pack, dataset.json first.

    Args:
        root: of the dataset; may be missing.
        keep: names of shards that stay.

    Raises:
        FileExistsError: `train` or `test` contains files that are not shards; nothing was removed.
    """
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
    names = [name for name in names if name not in keep]
    if root.is_dir():
        remove_file(root / DATASET_JSON)
        names += [path.name for path in root.iterdir() if is_table_name(path.name)]
    for folder in (root, *(root / split.value for split in Split)):
        remove_temporaries(folder)
    remove_files(root, names)


def table_entry(root: AnyPath, name: str, rows: int) -> TableEntry:
    """The entry in the metadata of a table that was written."""
    with (root / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return TableEntry(name=name, sha256=digest.hexdigest(), bytes=file.tell(), rows=rows)
