"""The configuration of `mfhq photos`.

As in a build, the keys that shape the dataset are separate from `run`, which sets how the machine works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config import Cosine, Faces, Fraction, Location, Name, Positive, Shards
from settings.section import Section
from shards.metadata import SemanticVersion
from shards.schema import IMAGES_PER_IDENTITY

CURATION_VERSION = 1
"""Increased whenever a change of the code changes what a person's photographs become."""


class PhotoSource(Section):
    """Where the photographs are, and what they show."""

    path: Location
    """A directory or a URL with one directory for each person."""
    name: Name = "photographs"
    """Name of the source in keys, records and the report."""
    license: str | None = None
    """Written into every record."""
    aligned: bool = False
    """Every photograph is a face that was cut out already, as in CASIA-WebFace: the whole image is stored."""
    subject: Literal["dominant", "central"] = "dominant"
    """Whose photograph it is. `dominant`: the largest face, where every other one is smaller than `max_other_face`
    times it; else the photograph is rejected (`several_faces`). `central`: the face nearest to the middle,
    whatever other faces there are; for sets that are centred on the person, such as LFW. Aligned faces are
    `central`."""
    max_other_face: Fraction = 0.6
    """Largest size of another face, as a fraction of the largest one's."""
    max_pixels: Annotated[int, Field(ge=10_000, le=120_000_000)] = 64_000_000
    """A larger photograph is rejected before it is decoded. A decoder's memory must hold several copies of it."""


class PhotoModels(Section):
    """Which networks are used; the names are those of `mfhq models list`."""

    detector: str = "yunet"
    landmarker: str = "face_landmarker"
    embedder: str = "sface"
    quality: str | None = "piqe"
    """Ranks the images of a person, of whom there are more than are needed. By sharpness when null."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all networks."""
        quality = () if self.quality is None else (self.quality,)
        return (self.detector, self.landmarker, self.embedder, *quality)


class PhotoFaces(Faces):
    """Which faces are good enough; as in a build, with limits for photographs, most of which are small.

    `min_relative_sharpness` is for the frames of a track, and not used.
    """

    min_crop_px: Positive = 96.0
    """Least side of the square that is stored, in pixels of the photograph. It is enlarged to 512."""
    min_sharpness: Annotated[float, Field(ge=0)] = 0.0
    """Least variance of the Laplacian of the face at 128 px. Enlarged faces have little of it."""


class PhotoPeople(Section):
    """How the photographs of a person become identities of eight images."""

    min_cosine: Cosine = 0.25
    """Faces less like the person's most typical one are another person's (`other_identity`). With SFace, 4 of 544
    photographs of 50 people are below it (one of them has a wrong label), and 95 % of other people's."""
    fill_from: Annotated[int, Field(ge=1, le=IMAGES_PER_IDENTITY)] | None = None
    """People with at least so many usable photographs, but fewer than eight, become an identity whose images are
    repeated in turn. Without it they are rejected (`too_few_photographs`)."""
    max_identities: Annotated[int, Field(ge=1)] | None = None
    """Most identities of a person, so that a person with hundreds of photographs does not outweigh the others."""
    mirrored: bool = False
    """Everyone of the training split is there once more as another person, seen in a mirror: for experiments with
    few people."""


class PhotoSplit(Section):
    """Which people are held out: drawn by the seed and their names alone."""

    test_fraction: Fraction = 0.01
    """Probability that a person is held out."""
    test_people: Annotated[int, Field(ge=0)] | None = None
    """Exactly so many people are held out, of those who have an identity. `test_fraction` then does not count."""
    seed: int = 0


class PhotoRun(Section):
    """How the machine works; only `device` can change a result."""

    models_dir: Location | None = None
    """Directory of weights, for networks that do not ship in a wheel."""
    device: Literal["cpu", "cuda"] = "cpu"
    processes: Annotated[int, Field(ge=1)] | None = None
    """One for each CPU when not set."""
    sandbox: Literal["best_effort", "required"] = "best_effort"
    """`required` is an error on machines whose kernel cannot enforce all of the decoder's sandbox."""
    photograph_timeout_s: Positive = 30.0
    """A photograph that takes longer to decode is rejected."""
    photograph_memory_gb: Positive = 4.0
    """A photograph whose decoder allocates more is rejected."""
    storage_timeout_s: Positive = 120.0
    """A directory that does not answer a read for so long is a fault of the machine."""


class PhotosConfig(Section):
    """A dataset of photographs."""

    example = "faces.crop_scale=1.1"
    shipped = "docs/datasets.md"

    name: Name = "photographs"
    version: SemanticVersion = "1.0.0"
    """Version of the dataset, for people to cite."""
    source: PhotoSource
    output: Location
    models: PhotoModels = PhotoModels()
    faces: PhotoFaces = PhotoFaces()
    people: PhotoPeople = PhotoPeople()
    split: PhotoSplit = PhotoSplit()
    shards: Shards = Shards()
    run: PhotoRun = PhotoRun()

    @model_validator(mode="after")
    def _output_is_not_inside_the_source(self) -> PhotosConfig:
        output, source = self.output.resolve(), self.source.path.resolve()
        if output == source or source in output.parents:
            raise ValueError(f"output: {self.output} is inside source.path {self.source.path}")
        return self

    def defining(self) -> dict[str, Any]:
        """The part that shapes the dataset: without `run` and without paths."""
        settings = self.model_dump(mode="json", exclude={"run": True, "output": True, "source": {"path"}})
        if self.source.aligned:
            settings["faces"]["crop_scale"] = None  # whole images are stored, however they were cut
        return {"kind": "photographs", **settings}

    def curation(self, weights: Mapping[str, str], libraries: Mapping[str, str]) -> dict[str, Any]:
        """Everything that decides what one person's photographs become, as a JSON object.

        Args:
            weights: sha256 of each network.
            libraries: version of each library that shapes the result.
        """
        settings = self.model_dump(mode="json", include={"source", "models", "faces", "people"})
        for key in ("path", "license"):
            del settings["source"][key]
        del settings["people"]["mirrored"]
        return {
            "kind": "photographs",
            "settings": settings,
            "jpeg_quality": self.shards.jpeg_quality,
            "weights": dict(weights),
            "curation_version": CURATION_VERSION,
            "device": self.run.device,
            "libraries": dict(libraries),
        }
