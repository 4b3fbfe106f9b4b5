"""The held-out people of a dataset, one identity each.

People are counted, not samples: somebody with twenty videos would otherwise weigh twenty times as much. Of a
person with several identities, the first one in the order of keys is used that is not damaged.

Letters in names give the shape:
    K  stored images of an identity (8)    S  side in pixels (512)    C  colour channels (3, RGB)
    L  landmarks (478)    P  keypoints (5)    2  x and y
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from faces.align import LANDMARKS
from shards.canonical import sha256_hex
from shards.landmarks import decode_landmarks
from shards.layout import IMAGES
from shards.metadata import DatasetError
from shards.reader import read_table
from shards.schema import IMAGE_SIDE, IMAGES_PER_IDENTITY, Split
from shards.tables import SCHEMAS
from storage.errors import StorageError
from storage.store import Store
from training.data.dataset import StreamedDataset
from training.data.decode import decode_image
from training.errors import BadSample, TrainingError

LEAST_PEOPLE = 2
"""Chance levels compare a person with another one."""


@dataclass(frozen=True)
class Person:
    """A held-out person."""

    id: str
    keys: tuple[str, ...]
    """The person's identities in the test split, sorted."""


@dataclass(frozen=True)
class Identity:
    """The images of the identity that stands for a person."""

    person: str
    key: str
    distinct: tuple[int, ...]
    """Numbers of the images that differ from one another: an identity of few photographs repeats some, and a
    repeated image could be input and target."""
    images_KSSC: NDArray[np.uint8]
    keypoints_KP2: NDArray[np.float32]
    """x and y as parts of the side, in the order of `faces.align`."""
    landmarks_KL2: NDArray[np.float32]
    """In pixels of the images."""


def held_out_people(dataset: StreamedDataset, most: int | None = None) -> list[Person]:
    """The people of the test split, in the order of their first keys.

    Args:
        dataset: to evaluate on.
        most: people at most; all when None.

    Raises:
        DatasetError: the table of images is damaged.
        TrainingError: there are fewer than two people, or the table cannot be read.
    """
    keys = dataset.keys(Split.TEST)
    person_of = _persons(dataset) if keys else {}
    found: dict[str, list[str]] = {}
    for key in sorted(keys):
        found.setdefault(person_of.get(key, key), []).append(key)
    people = [Person(person, tuple(own)) for person, own in found.items()][:most]
    if not people:
        raise TrainingError(
            f"{dataset.root} holds no people out: its test split is empty. Build the dataset with a test split "
            "(split.test_people, or split.test_fraction), or give another with --data"
        )
    if len(people) < LEAST_PEOPLE:
        raise TrainingError(
            f"{'--people 1' if most == 1 else dataset.root} leaves 1 held-out person. Chance levels compare a "
            f"person with another one: evaluate on {LEAST_PEOPLE} people or more"
        )
    return people


def read_identity(
    dataset: StreamedDataset, person: Person, images: int = 0
) -> tuple[Identity | None, dict[str, str]]:
    """The first identity of a person that is not damaged and has enough images.

    Args:
        dataset: that contains it.
        person: whose it is.
        images: different images that it must have.

    Returns:
        The identity, or None when there is none; and what is wrong with those that cannot be used, by key.

    Raises:
        DatasetError: a shard is gone.
        TrainingError: the dataset cannot be read.
    """
    problems: dict[str, str] = {}
    for key in person.keys:
        try:
            identity = _decoded(dataset, person.id, key)
            if len(identity.distinct) >= images:
                return identity, problems
            problems[key] = (
                f"sample {key}: it has {len(identity.distinct)} different images, {images} are needed"
            )
        except BadSample as error:
            problems[key] = str(error)
    return None, problems


def _decoded(dataset: StreamedDataset, person: str, key: str) -> Identity:
    sample = dataset.read(key)
    images_KSSC = np.empty((IMAGES_PER_IDENTITY, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    try:
        for number, data in enumerate(sample.images):
            decode_image(data, images_KSSC[number])
        landmarks_KL2 = decode_landmarks(sample.landmarks)
    except ValueError as error:
        raise BadSample(f"sample {key}: {error}") from error
    digests = [image.sha256 for image in sample.record.images]
    distinct = tuple(number for number, digest in enumerate(digests) if digest not in digests[:number])
    points_KP2 = ((landmarks_KL2[:, list(LANDMARKS)] + 0.5) / IMAGE_SIDE).astype(np.float32)
    return Identity(person, key, distinct, images_KSSC, points_KP2, landmarks_KL2)


def _persons(dataset: StreamedDataset) -> dict[str, str]:
    """The person of each identity, from the table of images: the shards need not be read for it."""
    entry = dataset.metadata.tables[IMAGES]
    try:
        data = Store(dataset.root).large(entry.name, entry.bytes)
    except StorageError as error:
        raise TrainingError(str(error)) from error
    if sha256_hex(data) != entry.sha256:
        raise DatasetError(
            f"{dataset.root}/{entry.name} was altered: its sha256 is not the one in dataset.json. Copy the "
            "dataset again, or check it with `mfhq verify`"
        )
    schema = pa.schema([SCHEMAS[IMAGES].field(name) for name in ("key", "person_id")])
    table = read_table(Path(entry.name), schema, data)
    return dict(zip(table["key"].to_pylist(), table["person_id"].to_pylist(), strict=True))
