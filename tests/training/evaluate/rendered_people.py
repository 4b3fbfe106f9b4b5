"""A dataset of rendered heads in known poses: faces of real photographs that no other test data is needed for."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faces.types import HeadPose
from pipeline.demo.mesh import LOWER_LIDS, UPPER_LIDS, VERTICES, HeadMesh, build_head
from pipeline.demo.photographs import packaged_landmarker, portrait
from pipeline.demo.render import HeadState, place_vertices, render
from shards.landmarks import encode_landmarks
from shards.metadata import Provenance
from shards.sample import Sample
from shards.schema import Split
from shards.writer import write_dataset

sys.path.insert(0, str(Path(__file__).parents[2] / "shards"))

import shards_factory as factory

PEOPLE = ("astronaut", "group-1", "group-3", "group-4", "group-6")
POSES = (
    *((0, 0, 0), (20, 0, 0), (-20, 5, 0), (10, -10, 5)),
    *((-10, 8, -5), (0, 12, 10), (25, -5, -8), (-28, 0, 3)),
)
"""Yaw, pitch, roll in degrees of the eight images of each person."""
GREY = np.full((512, 512, 3), 128, np.uint8)
Pixels = NDArray[np.uint8]


@cache
def mesh(person: str) -> HeadMesh:
    return build_head(portrait(person, packaged_landmarker()))


@cache
def head(person: str, pose: tuple[float, float, float]) -> Pixels:
    return render(mesh(person), HeadState(HeadPose(*map(float, pose))))


@cache
def landmarks(person: str, pose: tuple[float, float, float]) -> NDArray[np.float64]:
    """The landmarks of such an image, (478, 2) pixels: the vertices of the mesh; an iris is amid the lids."""
    placed, _ = place_vertices(mesh(person), HeadState(HeadPose(*map(float, pose))))
    irises = [
        placed[[*upper, *lower]].mean(axis=0) for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True)
    ]
    return np.concatenate([placed[:VERTICES], *(np.tile(iris, (5, 1)) for iris in irises)])


def heads(person: str) -> list[Pixels]:
    return [head(person, pose) for pose in POSES]


def sample(key: str, person: str, images: Sequence[Pixels], split: Split = Split.TEST) -> Sample:
    """A sample of these images, in `POSES`; the masks are those of the tests of the container."""
    base = factory.sample(key, split)
    encoded = tuple(_jpeg(image) for image in images)
    records = [
        record.model_copy(update={"sha256": factory.sha256(data)})
        for record, data in zip(base.record.images, encoded, strict=True)
    ]
    points = encode_landmarks(np.stack([landmarks(person, pose) for pose in POSES]))
    record = base.record.model_copy(
        update={"person_id": person, "images": records, "landmarks_sha256": factory.sha256(points)}
    )
    return Sample(record, encoded, base.masks, points)


def write_people(
    root: Path,
    people: Collection[str] = PEOPLE[:3],
    *,
    grey: Mapping[str, Collection[int]] | None = None,
    models: Mapping[str, str] | None = None,
    more: Sequence[Sample] = (),
    training: int = 1,
) -> Path:
    """Write a dataset that holds these people out.

    Args:
        root: of the dataset.
        people: rendered.
        grey: images that are grey, by person.
        models: networks that are said to have chosen the images.
        more: further samples.
        training: identities to train on, of noise.
    """
    grey = grey or {}
    samples = [
        sample(
            key_of(person),
            person,
            [
                GREY - number if number in grey.get(person, ()) else image
                for number, image in enumerate(heads(person))
            ],
        )
        for person in people
    ]
    samples = sorted([*samples, *more], key=lambda found: (found.record.split.value, found.record.key))
    samples += [factory.sample(f"train-{number}_0", Split.TRAIN) for number in range(training)]
    provenance = factory.PROVENANCE
    if models is not None:
        provenance = Provenance(**{**provenance.model_dump(), "models": dict(models)})
    write_dataset(root, samples, factory.videos(samples), provenance, factory.ShardLimits(max_samples=5))
    return root


def key_of(person: str) -> str:
    return f"{person}_0"


def _jpeg(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
