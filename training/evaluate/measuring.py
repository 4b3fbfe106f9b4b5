"""Measures the real and the generated images of one person.

Letters in names give the shape:
    K  stored images of an identity (8)    S  side in pixels    C  colour channels (3, RGB)    P  keypoints (5)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faces.types import Floats
from shards.schema import IMAGE_SIDE
from training.data.dataset import StreamedDataset
from training.evaluate.figures import PersonFigures, RealFaces, person_figures
from training.evaluate.generate import GeneratedImage, SourceFacts, read_image
from training.evaluate.networks import Face, MeasuringNetworks, at_side
from training.evaluate.people import Identity, Person, read_identity
from training.evaluate.protocol import Roles, roles

JPEG_QUALITY = 75
"""Of the targets that are encoded anew, which shows the noise of the pose estimator; Pillow's default."""


@dataclass(frozen=True)
class StoredFaces:
    """The stored images of a person, measured, and small enough to be gathered without the embeddings.

    Attributes:
        place: of the person among the people of the evaluation.
        person: the person.
        key: of the identity that stands for the person; None when none can be used.
        damaged: what is wrong with the identities that cannot be used, by key.
        keypoints: of the images in which a face was found, by number.
        roles: of the images; None without an identity.
    """

    place: int
    person: Person
    key: str | None
    damaged: dict[str, str]
    keypoints: dict[int, Floats]
    roles: Roles | None

    @property
    def targets(self) -> tuple[int, ...]:
        """Targets in which a face was found; without any, the person is left out."""
        return () if self.roles is None else tuple(n for n in self.roles.targets if n in self.keypoints)


def measure_stored(
    dataset: StreamedDataset, networks: MeasuringNetworks, place: int, person: Person, inputs: Sequence[int]
) -> tuple[StoredFaces, dict[int, Face]]:
    """Measure the stored images of a person.

    Returns:
        What the other ranks need of it, and the face of each image.

    Raises:
        DatasetError: a shard is gone.
        TrainingError: the dataset cannot be read.
    """
    identity, damaged = read_identity(dataset, person, images=max(inputs) + 1)
    if identity is None:
        return StoredFaces(place, person, None, damaged, {}, None), {}
    faces = {number: networks.measure(image) for number, image in enumerate(identity.images_KSSC)}
    keypoints = {number: face.keypoints for number, face in faces.items() if face.keypoints is not None}
    return (
        StoredFaces(
            place, person, identity.key, damaged, keypoints, roles(identity.key, inputs, identity.distinct)
        ),
        faces,
    )


def images_of(
    own: StoredFaces, sources: Iterable[SourceFacts], inputs: Sequence[int], samples: int
) -> list[GeneratedImage]:
    """The images that are generated of a person: for each source and number of inputs, `samples` a target."""
    assert own.key is not None  # noqa: S101 - a person without an identity is left out before
    return [
        GeneratedImage(source.name, own.key, own.person.id, k, target, sample)
        for source in sources
        for k in inputs
        for target in own.targets
        for sample in range(samples)
    ]


def measure_person(
    own: StoredFaces,
    faces: dict[int, Face],
    identity: Identity,
    *,
    networks: MeasuringNetworks,
    images: Sequence[GeneratedImage],
    output: Path,
    sides: Iterable[int],
    names: Sequence[str],
    done: Callable[[], object] = lambda: None,
) -> PersonFigures:
    """Measure a person's generated images, and the reference levels of the real ones.

    Args:
        own: the person, with a target.
        faces: of the stored images.
        identity: their pixels.
        networks: know the usual place of a face.
        images: that were generated.
        output: directory that contains them.
        sides: of generated images, in pixels.
        names: of the identity networks.
        done: called after each generated image.

    Raises:
        TrainingError: a generated image cannot be read.
    """
    assert own.roles is not None  # noqa: S101 - a person without an identity is left out before
    pixels = identity.images_KSSC
    used = sorted({*own.roles.inputs, *own.targets})
    real = RealFaces(
        stored=faces,
        at_side={
            side: {
                n: faces[n] if side == IMAGE_SIDE else networks.measure(at_side(pixels[n], side))
                for n in used
            }
            for side in sorted(set(sides))
        },
        mirrored={n: networks.measure(np.ascontiguousarray(pixels[n][:, ::-1])) for n in own.targets},
        reencoded={n: networks.measure(_reencoded(pixels[n])) for n in own.targets},
    )
    generated: dict[GeneratedImage, Face] = {}
    for image in images:
        generated[image] = networks.measure(read_image(output, image))
        done()
    return person_figures(
        own.person.id,
        identity.key,
        inputs=own.roles.inputs,
        targets=own.roles.targets,
        real=real,
        generated=generated,
        networks=names,
    )


def _reencoded(image_SSC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    encoded = io.BytesIO()
    Image.fromarray(image_SSC).save(encoded, "JPEG", quality=JPEG_QUALITY)
    with Image.open(encoded, formats=["JPEG"]) as found:
        return np.asarray(found.convert("RGB"))
