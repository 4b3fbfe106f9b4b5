"""The configuration of a build: typed, complete before work starts, and closed to unknown keys.

The keys that shape the dataset are separate from `run`, which sets how the machine works: only the former are part
of the digest that names a build.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from settings.section import Section
from shards.metadata import SemanticVersion
from shards.schema import IMAGES_PER_IDENTITY
from storage.path import AnyPath, ObjectPath, path_of

Degrees = Annotated[float, Field(ge=0, le=180)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,19}$",
        description="1 to 20 lower-case letters, digits and hyphens, no hyphen first",
    ),
]


BUCKETS = ("s3", "gs", "az", "abfs", "abfss")
"""Schemes of the object stores that a build reads and writes."""


def _location(value: object) -> AnyPath:
    if isinstance(value, Path | ObjectPath):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("expected a path, or a URL such as s3://bucket/prefix")
    if value.startswith("~"):
        raise ValueError("`~` is not expanded here. Write the whole path")
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in (*BUCKETS, "file"):
        schemes = ", ".join(f"{each}://" for each in BUCKETS)
        raise ValueError(f"expected a path, or a URL that begins with {schemes}")
    if separator and not rest:
        raise ValueError(f"expected a bucket behind {scheme}://")
    found = path_of(value)
    # Workers have another working directory than the process that was given the path.
    return found.absolute()


Location = Annotated[AnyPath, PlainValidator(_location), PlainSerializer(str, return_type=str)]
"""A directory that every node of the cluster sees, or a place in an object store."""


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _relative_glob(glob: str) -> str:
    if not glob or glob.startswith(("/", "./")):
        raise ValueError("expected a glob of paths relative to source.path, such as train/*.mp4")
    return glob


Globs = Annotated[tuple[Annotated[str, AfterValidator(_relative_glob)], ...], BeforeValidator(_one_or_more)]


class Source(Section):
    """Where the videos come from."""

    kind: Literal["folder", "celebv-hq", "celebv-text", "talkinghead-1kh", "vfhq"] = "folder"
    """`folder` takes every video file. A dataset takes the clips that its official tools cut, by the names in its
    annotations, with what these say of them."""
    name: Name = "folder"
    """Name of the dataset in keys, records and the report; that of the kind when not set."""
    path: Location
    annotations: Location | None = None
    """Annotation file of a dataset, for VFHQ the directory of them; found in `path` and the folder above by its
    official name when not set."""
    frame_rate: Positive = 25.0
    """Frames a second of VFHQ's directories of frames, where the annotation that says so is not there. `mfhq plan`
    takes it for the length of all clips that are annotated in frames only."""
    include: Globs = ("*",)
    """Only files that match one of these globs are listed. A glob is matched against the whole path relative to
    `path`; `*` and `?` also match `/`, and case counts: `train/*` is everything below train, `*_front.mp4` these
    files in all directories."""
    exclude: Globs = ()
    """Files that match one of these globs are not listed, even if `include` matches. A glob that matches a folder
    with a `/` at its end (`raw/`, `raw/*`, `*/lost+found/`) leaves the folder unread."""
    license: str | None = None
    """Written into every record of this source."""

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_kind(cls, value: Any) -> Any:
        return {"name": value["kind"], **value} if isinstance(value, dict) and "kind" in value else value

    @model_validator(mode="after")
    def _only_datasets_have_annotations(self) -> Source:
        if self.kind == "folder" and self.annotations is not None:
            raise ValueError(
                "annotations: source.kind=folder reads none. Give the dataset as source.kind, or leave it out"
            )
        return self


class Models(Section):
    """Which networks are used; the names are those of `mfhq models list`."""

    detector: str
    landmarker: str = "face_landmarker"
    embedder: str
    quality: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all networks."""
        return (self.detector, self.landmarker, self.embedder, self.quality)


class Frames(Section):
    """Which frames of a video are analysed."""

    decoder: Literal["auto", "pyav", "decord"] = "auto"
    """`auto` and `pyav` decode with PyAV, which reports damage. `decord` decodes with decord the files that it
    reads and in which a PyAV pass finds no damage; see docs/decoding.md."""
    per_second: Positive = 6.0
    """Analysed frames per second. A head turns about 30 degrees in a second, so 6 give steps of 5 degrees."""
    max_per_video: Annotated[int, Field(ge=IMAGES_PER_IDENTITY)] = 400
    """A longer video is analysed more sparsely, over its whole length."""


class Faces(Section):
    """Which faces are good enough, frame by frame."""

    detection_side: Annotated[int, Field(ge=128, le=2048)] = 640
    """The frame with its border is reduced to this for detection, longer side in pixels; further, down to 320,
    where a face that passes the gate is still large enough to be found."""
    min_score: Fraction = 0.6
    """Least confidence of the detector."""
    min_crop_px: Positive = 448.0
    """Least side of the stored head crop in source pixels, at most the frame's shorter side. The paper asks for a
    "face resolution larger than 448" without a definition."""
    min_px: Positive | None = None
    """Least face size (square root of the detector's box) in source pixels, a second gate; none when not set."""
    max_yaw: Degrees = 75.0
    max_pitch: Degrees = 50.0
    max_roll: Degrees = 45.0
    min_brightness: Annotated[float, Field(ge=0, le=255)] = 30.0
    """Least mean luma over the face box, 0..255."""
    max_noise: Annotated[float, Field(ge=0)] = 8.0
    """Most noise over the face box, as a standard deviation in grey levels; video from the web has about 1."""
    min_sharpness: Annotated[float, Field(ge=0)] = 25.0
    """Least variance of the Laplacian of the face at 128 px."""
    min_relative_sharpness: Fraction = 0.4
    """Least sharpness as a fraction of the track's median: finds motion blur in an otherwise sharp video."""
    crop_scale: Annotated[float, Field(ge=1, le=4)] = 1.6
    """Side of the stored square as a multiple of the landmarks' longer side."""


class Tracking(Section):
    """How detections are joined to tracks of one person."""

    min_overlap: Fraction = 0.25
    """Least intersection over union of a face's boxes in consecutive analysed frames."""
    max_gap_s: Positive = 1.0
    """A face unseen for longer ends its track."""
    cut_distance: Fraction = 0.5
    """Distance of consecutive colour histograms (0 equal, 1 disjoint) above which the shot has changed."""
    min_cosine: Cosine = 0.3
    """A face whose embedding is less like the track's starts a new track. Faces that stay where they were and look
    as they did are not embedded."""
    rejoin_cosine: Cosine = 0.6
    """A face this like a track's continues it at any position, also after a cut."""
    merge_cosine: Cosine | None = None
    """Tracks this alike that are never seen in one frame are one person's, such as those around a cutaway. The
    `link_cosine` of the embedder in the registry of networks when not set."""
    min_outlier_cosine: Cosine = 0.4
    """Frames whose face is embedded and less like the track's medoid than this are dropped from it; profiles only
    where the track is interrupted."""

    @model_validator(mode="after")
    def _rejoining_asks_for_more(self) -> Tracking:
        if self.rejoin_cosine < self.min_cosine:
            raise ValueError(
                f"rejoin_cosine: {self.rejoin_cosine:g} is below min_cosine {self.min_cosine:g}; expected at "
                "least as much, because a face at another position needs more proof than one at the same position"
            )
        return self


class Selection(Section):
    """How eight images are chosen from a track."""

    clusters: Annotated[int, Field(gt=IMAGES_PER_IDENTITY, le=256)] = 12
    """Pose clusters, more than 8 (over-clustering, Omni-ID section 3.4). Fewer clusters hold more images each, so
    that quality has a choice; 12 still cover the range of poses."""
    candidates_per_cluster: Annotated[int, Field(ge=1, le=32)] = 2
    """Images of each chosen cluster that the quality network scores, one of the others: scoring is the most
    expensive step. Where these cannot give eight poses that are far enough apart, eight more come to them."""
    sharpness_weight: Annotated[float, Field(ge=0)] = 0.7
    """Weight of an image's rank in sharpness beside its rank in quality; 0 for quality alone."""
    min_separation_deg: Degrees = 1.5
    """Least pose distance between two chosen images, in degrees. A head held still shows about 0.8."""
    roll_weight: Fraction = 0.5
    """Weight of roll in the pose distance: turning an image in its plane shows no new view of a face."""
    min_relative_eyes_open: Fraction = 0.8
    """Eyes less open than this fraction of wide open in the track (its 90th percentile) count as closed."""
    worst_quality: float | None = None
    """Images scored worse than this are never chosen; none when not set."""


class People(Section):
    """How identities that show the same person are linked."""

    link_cosine: Cosine | None = None
    """Least mean cosine between two groups of identities that are joined to one person; that of the embedder in
    the registry of networks when not set."""
    same_origin_cosine: Cosine | None = None
    """The same where all identities are from one origin, such as a YouTube video: they are far likelier to show
    one person. The `same_person_cosine` of the embedder in the registry when not set, at most `link_cosine`."""
    max_person_videos: Annotated[int, Field(ge=2)] = 500
    """A person in more origins (videos, where no origin is known) than this stops the build: one link too many can
    join thousands of persons."""
    keep: Literal["all", "best"] = "all"
    """`best` keeps only the best-scored identity of each person."""

    @model_validator(mode="after")
    def _one_origin_needs_less(self) -> People:
        if (
            self.link_cosine is not None
            and self.same_origin_cosine is not None
            and self.same_origin_cosine > self.link_cosine
        ):
            raise ValueError(
                f"same_origin_cosine: {self.same_origin_cosine:g} is above link_cosine {self.link_cosine:g}; "
                "expected at most as much, because identities of one origin are likelier to show one person"
            )
        return self


class Split(Section):
    """Which identities are held out: always all that share a person, a video or an origin. See people/split.py."""

    test_fraction: Fraction = 0.01
    """Probability that an origin (a video, where its origin is unknown) is held out, with everyone linked to it.
    Drawn from the seed and the name alone, so adding videos does not change it. The paper holds out 44 of 134,077
    identities. One in a hundred costs little training data, and is a few people in a set of 500 videos."""
    max_group_videos: Annotated[int, Field(ge=1)] | None = 100
    """A larger group stays in the training split when it is drawn, and the log names it: it is somebody with a
    hundred videos, or people linked by mistake, and would outweigh the rest of the test split. A group that grows
    beyond it leaves the test split, unless `from` holds it out. No limit when null."""
    earlier: Annotated[Location | None, Field(alias="from")] = None
    """An earlier dataset whose split is continued: its identities stay in their split."""
    test_list: Location | None = None
    """Text file with the videos to hold out, one a line: file name, video id, sample key or origin. With it,
    nothing is drawn."""
    seed: int = 0


class Shards(Section):
    """How the dataset is stored."""

    max_samples: Annotated[int, Field(ge=1)] = 256
    max_bytes: Annotated[int, Field(ge=2**20)] = 2**30
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    store_embeddings: bool = True
    """Whether records contain the identity's embedding: without it, the dataset cannot be searched for faces."""


class Run(Section):
    """How the machines run the build; only `device` can change a result, so only it is part of the curation."""

    models_dir: Location | None = None
    """Directory of weights, for models that do not ship in a wheel."""
    device: Literal["cpu", "cuda"] = "cpu"
    analysers: Annotated[int, Field(ge=1)] | None = None
    """Most processes that analyse videos and choose their images. When not set, as many as have room, now and on
    nodes that join later."""
    analyser_cpus: Positive = 1.0
    analyser_gpus: Annotated[float, Field(ge=0)] = 0.0
    """A fraction of one GPU, or a whole number of them."""
    analyser_memory_gb: Positive = 1.5
    """Memory that an analyser takes in ordinary work, in GiB, so that Ray does not crowd a node with them. 1.5 is
    for the embedded networks; docs/clusters.md has the measurements."""
    sandbox: Literal["best_effort", "required"] = "best_effort"
    """`required` is an error on machines whose kernel cannot enforce all of the decoder's sandbox; `best_effort`
    decodes there too, under what the kernel can enforce, and logs what is missing."""
    video_timeout_s: Positive = 600.0
    """A video that takes longer, analysis included, is one failed row."""
    video_memory_gb: Positive = 8.0
    """A video whose decoder allocates more is one failed row."""
    crash_retries: Annotated[int, Field(ge=0)] = 1
    """How often a video is tried again after its decoder crashed: the machine may be at fault."""
    storage_timeout_s: Positive = 120.0
    """A directory that does not answer a read or a write for so long is a fault of its node."""
    node_faults: Annotated[int, Field(ge=1)] = 3
    """A node where so many videos in a row meet a fault of the machine (a lost mount, a broken GPU, a full disk)
    is failing. One fault may pass."""
    failing_nodes: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The build ends when more than this share of its nodes is failing. Until then, their videos are tried again
    elsewhere. When most of them fail, the cause is one that they share."""

    @model_validator(mode="after")
    def _gpus_can_be_had(self) -> Run:
        if self.analyser_gpus > 1 and self.analyser_gpus % 1:
            raise ValueError(
                f"run.analyser_gpus={self.analyser_gpus:g}: give a fraction of one GPU, or a whole number of them"
            )
        return self


class PlanConfig(Section):
    """A whole build, except that it need not have an output: what `mfhq plan` reads."""

    example = "faces.min_crop_px=256"
    shipped = "workflows/curate_*.yaml"

    name: Name = "mfhq"
    version: SemanticVersion = "1.0.0"
    """Version of the dataset, for people to cite."""
    source: Source | None = None
    """Short for `sources` with one entry."""
    sources: tuple[Source, ...] = ()
    """Where the videos come from; an override names an entry: sources.vfhq.path=/data/vfhq, sources.vfhq=null
    leaves it out."""
    output: Location | None = None
    models: Models
    frames: Frames = Frames()
    faces: Faces = Faces()
    tracking: Tracking = Tracking()
    selection: Selection = Selection()
    people: People = People()
    split: Split = Split()
    shards: Shards = Shards()
    run: Run = Run()

    @model_validator(mode="after")
    def _there_are_sources(self) -> Self:
        if self.source is None and not self.sources:
            raise ValueError("source: not set; give it in the file or as source.path=VALUE")
        if self.source is not None and self.sources:
            raise ValueError(
                "source: the workflow lists sources, so this would be one too many. Name the one that is meant, "
                f"such as sources.{self.sources[0].name}.path=VALUE"
            )
        for name, count in Counter(source.name for source in self.all_sources).items():
            if count > 1:
                raise ValueError(f"sources: {count} have the name {name!r}. Give each a name of its own")
        return self

    @model_validator(mode="after")
    def _output_is_not_inside_a_source(self) -> Self:
        if self.output is None:
            return self
        output = self.output.resolve()
        for source in self.all_sources:
            path = source.path.resolve()
            if output == path or path in output.parents:
                key = "source" if self.source is not None else f"sources.{source.name}"
                raise ValueError(f"output: {self.output} is inside {key}.path {source.path}")
        return self

    @model_validator(mode="after")
    def _output_is_not_the_earlier_dataset(self) -> Self:
        earlier = self.split.earlier
        if self.output is not None and earlier is not None and earlier.resolve() == self.output.resolve():
            raise ValueError(
                f"split.from: {earlier} is the output, which the build overwrites. Give another output, or a "
                "copy of the earlier dataset (dataset.json and its .parquet files are enough)"
            )
        return self

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The sources, however they were given."""
        return self.sources if self.source is None else (self.source,)

    def defining(self, contents: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The part of the configuration that shapes the dataset: without `run` and without paths.

        `sources` are by name, so that their order does not matter.

        Args:
            contents: sha256 of what `split.from` and `split.test_list` name, by the key in `split`. It stands in
                place of the paths; see people/split_inputs.py.

        Raises:
            KeyError: one of them is set, and `contents` lacks it.
        """
        settings = self.model_dump(mode="json", exclude={"run", "output", "source", "sources", "split"})
        files = {"from": self.split.earlier, "test_list": self.split.test_list}
        settings["split"] = self.split.model_dump(mode="json", exclude={"earlier", "test_list"}) | {
            key: None if location is None else f"sha256:{(contents or {})[key]}"
            for key, location in files.items()
        }
        sources = {
            source.name: source.model_dump(mode="json", exclude={"name", "path", "annotations"})
            for source in self.all_sources
        }
        return settings | {"sources": sources}

    def curation(self, weights: dict[str, str], libraries: dict[str, str]) -> dict[str, Any]:
        """Everything that decides the result of curating one video, as a JSON object.

        The steps after it (linking people, split, sharding) may change without a new curation, and so may every
        key of `run` except the device.

        Args:
            weights: sha256 of each network.
            libraries: version of each library that shapes the result.
        """
        sections = {"models", "frames", "faces", "tracking", "selection"}
        settings = self.model_dump(mode="json", include=sections)
        settings["shards"] = {"jpeg_quality": self.shards.jpeg_quality}
        return {
            "settings": settings,
            "weights": weights,
            "curation_version": CURATION_VERSION,
            # Another device or library changes last bits, so it is another curation. The user may mix them.
            "device": self.run.device,
            "libraries": libraries,
        }


class Config(PlanConfig):
    """A whole build."""

    output: Location


CURATION_VERSION = 7
"""Increased whenever a change of the code changes the result of curating a video."""


def digest(value: object) -> str:
    """Sha256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
