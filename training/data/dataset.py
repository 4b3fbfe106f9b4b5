"""A dataset in a directory or an object store: opened with all checks that are cheap, then read sample by sample.

Opening trusts nothing: dataset.json proves itself, the index is proved by dataset.json, and the sizes of all
shards are compared with it by one listing. A sample is proved by the digests of its index row and its record, so a
damaged byte never reaches a training step.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from settings.section import ConfigError
from shards.canonical import sha256_hex
from shards.layout import DATASET_JSON, IMAGE_FIELDS, INDEX, JSON_FIELD, LANDMARKS_FIELD, MASK_FIELDS
from shards.metadata import DIGEST_FIELD, DatasetError, DatasetMetadata, check_version, decode_metadata
from shards.reader import Index, SampleRange, decode_sample, read_table
from shards.sample import Sample
from shards.schema import IMAGES_PER_IDENTITY, Split
from shards.tables import SCHEMAS
from storage.errors import NoSuchFile, StorageError, UrlError
from storage.store import Store
from training.data.cache import SampleCache
from training.errors import BadSample, TrainingError

OPENING_S = 20.0
"""What fails for so long while a dataset is opened is a wrong URL rather than a passing fault."""
REFETCHES = 2
"""A sample whose digests are wrong is fetched so many times more: bytes can be damaged on their way."""
_DIGESTS = re.compile(rb'"(?:mask_)?sha256":"([0-9a-f]{64})"')
_LANDMARKS_DIGEST = re.compile(rb'"landmarks_sha256":"([0-9a-f]{64})"')
Bytes = bytes | memoryview
T = TypeVar("T")


@dataclass(frozen=True)
class Pictures:
    """The files of a sample that a training step needs, proved by their digests."""

    images: Sequence[Bytes]
    masks: Sequence[Bytes]
    landmarks: Bytes


@dataclass(frozen=True)
class Fetched:
    """The bytes of a sample as they came, not checked yet."""

    place: SampleRange
    data: Bytes
    cached: bool


class StreamedDataset:
    """A finished dataset in a directory or an object store; use `open_dataset`."""

    def __init__(self, store: Store, data: bytes, cache: SampleCache | None) -> None:
        self._store = store
        self._cache = cache
        self.root = store.root
        self.metadata: DatasetMetadata = decode_metadata(data)
        self.digest: str = json.loads(data)[DIGEST_FIELD]
        """The metadata's own sha256: names the dataset, all bytes of it."""
        self._plain = not check_version(self.metadata.format_version)
        self._index = self._open_index()
        self._check_shards()

    @property
    def crop_scale(self) -> float | None:
        """Side of an image in sizes of its face, where the dataset has it."""
        faces = self.metadata.provenance.config.get("faces")
        found = faces.get("crop_scale") if isinstance(faces, dict) else None
        return float(found) if isinstance(found, int | float) else None

    @property
    def retry_s(self) -> float:
        """How long a read is tried, in seconds."""
        return self._store.retry_s

    def keys(self, split: Split) -> list[str]:
        """The keys of a split in canonical order."""
        return self._index.keys(split)

    def read(self, key: str) -> Sample:
        """One sample with its whole record, checked.

        Raises:
            BadSample: it is damaged, and stayed so when it was fetched again.
            TrainingError: it cannot be read.
        """
        return self.sample(self.fetch(key))

    def fetch(self, key: str, stopped: threading.Event | None = None) -> Fetched:
        """The bytes of a sample, from the cache if they are there.

        Args:
            key: of the sample.
            stopped: once it is set, waits between tries end, and there are no more tries.

        Raises:
            DatasetError: the index points to no place, or the shard is gone.
            TrainingError: they cannot be read.
        """
        place = self._index.locate(key)
        if self._cache is not None and (data := self._cache.get(self._name(key))) is not None:
            return Fetched(place, data, cached=True)
        return self._fetch(place, stopped)

    def pictures(self, fetched: Fetched, stopped: threading.Event | None = None) -> Pictures:
        """The files of a sample that was fetched, checked; damaged bytes are fetched again.

        Args:
            fetched: the sample.
            stopped: once it is set, waits between tries end, and there are no more tries.

        Raises:
            BadSample: it stayed damaged.
            TrainingError: it cannot be read again.
        """
        if self._plain:
            return self._checked(fetched, _pictures, stopped)
        sample = self.sample(fetched, stopped)
        return Pictures(sample.images, sample.masks, sample.landmarks)

    def sample(self, fetched: Fetched, stopped: threading.Event | None = None) -> Sample:
        """A sample that was fetched, with its whole record: as `pictures`, and slower."""
        return self._checked(fetched, _sample, stopped)

    def _fetch(self, place: SampleRange, stopped: threading.Event | None) -> Fetched:
        with _errors_of_training():
            data = self._store.range(place.shard, place.offset, place.length, stopped)
        return Fetched(place, data, cached=False)

    def _checked(
        self,
        fetched: Fetched,
        decode: Callable[[SampleRange, Bytes], T],
        stopped: threading.Event | None = None,
    ) -> T:
        place = fetched.place
        for left in range(REFETCHES, -1, -1):
            try:
                decoded = decode(place, fetched.data)
            except DatasetError as error:
                if fetched.cached and self._cache is not None:
                    self._cache.drop(self._name(place.key))
                if left == 0:
                    raise BadSample(f"sample {place.key}: {error} (tried {REFETCHES + 1} times)") from error
                fetched = self._fetch(place, stopped)
                continue
            if self._cache is not None and not fetched.cached:
                self._cache.put(self._name(place.key), fetched.data)
            return decoded
        raise AssertionError("unreachable")

    def _name(self, key: str) -> str:
        return f"{self.digest}/{key}"

    def _open_index(self) -> Index:
        expected = self.metadata.tables[INDEX]
        name = expected.name
        # One that was cut off would be tried again and again, as an answer that comes short is.
        with _errors_of_training():
            found = self._store.size(name)
        if found is not None and found != expected.bytes:
            raise DatasetError(
                f"{self.root}/{name} has {found:,} bytes, {DATASET_JSON} says {expected.bytes:,}: it was "
                "altered, or not copied to its end. Copy the dataset again, or check it with `mfhq verify`"
            )
        with _errors_of_training():
            data = self._store.large(name, expected.bytes)
        if sha256_hex(data) != expected.sha256:
            raise DatasetError(
                f"{self.root}/{name} was altered: its sha256 is not the one in {DATASET_JSON}. Copy the data "
                "set again, or check it with `mfhq verify`"
            )
        return Index(self.metadata, read_table(Path(name), SCHEMAS[INDEX], data))

    def _check_shards(self) -> None:
        problems = []
        for split in Split:
            expected = {shard.name: shard.bytes for shard in self.metadata.shards if shard.split is split}
            with _errors_of_training():
                found = self._store.sizes(split.value, expected) if expected else {}
            for name, size in sorted(expected.items()):
                if name not in found:
                    problems.append(f"{name} is missing")
                elif found[name] != size:
                    problems.append(f"{name} has {found[name]:,} bytes instead of {size:,}")
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise DatasetError(
                f"{self.root} is not whole: {'; '.join(problems[:3])}{more}. Copy these shards again"
            )


def open_dataset(root: str, retry_s: float, cache: SampleCache | None = None) -> StreamedDataset:
    """Open the dataset in a directory, or at a URL such as s3://bucket/mfhq.

    Raises:
        DatasetError: no dataset, a damaged one or one of a newer version.
        TrainingError: it cannot be reached.
        ConfigError: the root is no URL that can be read, or holds a secret.
    """
    try:
        with _errors_of_training():
            store = Store(root, min(retry_s, OPENING_S))
    except UrlError as error:
        raise ConfigError(f"data.root: {error}") from None
    try:
        with _errors_of_training():
            data = store.whole(DATASET_JSON)
    except DatasetError:
        raise DatasetError(
            f"{store.root} is no finished dataset: it has no {DATASET_JSON}. Finish the build or the copy, or "
            "check its path"
        ) from None
    dataset = StreamedDataset(store, data, cache)
    store.retry_s = retry_s
    return dataset


@contextmanager
def _errors_of_training() -> Iterator[None]:
    """A file that is missing is the dataset's error, another failure that of the run."""
    try:
        yield
    except NoSuchFile as error:
        raise DatasetError(str(error)) from None
    except StorageError as error:
        raise TrainingError(str(error)) from error


def _pictures(place: SampleRange, data: Bytes) -> Pictures:
    """Check a sample without building its record, which takes as long as decoding an image.

    The record is proved by the index and has one spelling, so its digests can be found as text: an image's mask
    comes before the image, because keys are sorted. A quotation mark inside a text is escaped, so nothing else
    matches.
    """
    view = memoryview(data)
    start = place.offset
    parts = {
        field: view[offset - start : offset - start + size] for field, (offset, size) in place.members.items()
    }
    text = parts[JSON_FIELD]
    if sha256_hex(text) != place.json_sha256:
        raise DatasetError(f"{place.shard}: member {place.key}.{JSON_FIELD} is damaged: its sha256 is wrong")
    digests = _DIGESTS.findall(text)
    if len(digests) != 2 * IMAGES_PER_IDENTITY:
        raise DatasetError(
            f"{place.shard}: member {place.key}.{JSON_FIELD} is no record of {IMAGES_PER_IDENTITY} images"
        )
    for field, digest in zip(_IN_RECORD, digests, strict=True):
        if sha256_hex(parts[field]).encode() != digest:
            raise DatasetError(f"{place.shard}: member {place.key}.{field} is damaged: its sha256 is wrong")
    landmarks = _LANDMARKS_DIGEST.findall(text)
    if len(landmarks) != 1 or sha256_hex(parts[LANDMARKS_FIELD]).encode() != landmarks[0]:
        raise DatasetError(
            f"{place.shard}: member {place.key}.{LANDMARKS_FIELD} is damaged: its sha256 is wrong"
        )
    return Pictures(
        [parts[field] for field in IMAGE_FIELDS],
        [parts[field] for field in MASK_FIELDS],
        parts[LANDMARKS_FIELD],
    )


_IN_RECORD = [field for pair in zip(MASK_FIELDS, IMAGE_FIELDS, strict=True) for field in pair]


def _sample(place: SampleRange, data: Bytes) -> Sample:
    return decode_sample(place, bytes(data))
