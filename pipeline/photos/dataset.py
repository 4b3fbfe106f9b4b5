"""From finished people to the dataset: split, shards, tables. The same people and settings give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from faces.registry import Weights
from pipeline.config import digest
from pipeline.errors import BuildError
from pipeline.packing.shard import without_embedding
from pipeline.photos.config import PhotosConfig
from pipeline.photos.outcomes import PhotographOutcome
from pipeline.photos.staged import StagedPeople
from pipeline.photos.task import PersonTask
from pipeline.provenance import code_version, library_versions
from shards.layout import DATASET_JSON
from shards.metadata import DatasetError, DatasetMetadata, Provenance, ShardLimits
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import Split, VideoOutcome
from shards.writer import write_dataset


@dataclass(frozen=True)
class Placed:
    """A sample that is to be written: where it is staged, and its split.

    Attributes:
        split: of its person.
        key: of the sample.
        task: its person.
        place: of the sample among those of the person.
    """

    split: Split
    key: str
    task: PersonTask
    place: int


@dataclass(frozen=True)
class Rows:
    """What is known of all finished people.

    Attributes:
        videos: the rows of the videos table.
        keys: of the identities of each person.
    """

    videos: dict[PersonTask, VideoOutcome]
    keys: dict[PersonTask, list[str]]

    @property
    def identified(self) -> list[str]:
        """Names of the people who have an identity."""
        return [task.person.name for task, keys in self.keys.items() if keys and not task.mirrored]


def rows_of(tasks: Sequence[PersonTask], staging: StagedPeople, license_: str | None) -> Rows:
    """Read the rows of finished people.

    Args:
        tasks: all finished.
        staging: holds them.
        license_: written into every row.

    Raises:
        BuildError: a file cannot be read back.
    """
    videos, keys = {}, {}
    for task in tasks:
        outcome, found = staging.outcome(task.person, mirrored=task.mirrored)
        videos[task], keys[task] = outcome.model_copy(update={"license": license_}), found
    return Rows(videos, keys)


def placed(rows: Rows, held_out: frozenset[str]) -> list[Placed]:
    """All samples in canonical order.

    Args:
        rows: of all people.
        held_out: names of those in the test split; there are no mirror images of them.
    """
    found = [
        Placed(Split.TEST if task.person.name in held_out else Split.TRAIN, key, task, place)
        for task, keys in rows.keys.items()
        for place, key in enumerate(keys)
    ]
    return sorted(found, key=lambda each: (each.split.value, each.key))


def provenance(config: PhotosConfig, weights: Weights) -> Provenance:
    """What makes the dataset."""
    defining = config.defining()
    return Provenance(
        config=defining,
        config_digest=digest(defining),
        models={name: model.sha256 for name, model in sorted(weights.items())},
        code_version=code_version(),
        libraries=library_versions(),
    )


def write(
    config: PhotosConfig,
    weights: Weights,
    staging: StagedPeople,
    rows: Rows,
    samples: Sequence[Placed],
    *,
    progress: Callable[[int], None],
    check_lock: Callable[[], None],
) -> DatasetMetadata:
    """Write the dataset, unless the same one is there already.

    Args:
        config: of the dataset.
        weights: the networks used.
        staging: holds the people.
        rows: of all of them.
        samples: in canonical order.
        progress: called with the number of samples written so far.
        check_lock: raises BuildError once another process has the output.

    Raises:
        BuildError: a staged file cannot be read back.
        OutOfSpace: the disk is full.
    """
    made = provenance(config, weights)
    limits = ShardLimits(max_samples=config.shards.max_samples, max_bytes=config.shards.max_bytes)
    videos = sorted(rows.videos.values(), key=lambda video: video.video_id)
    there = _what_is_there(config, made, limits, videos)
    if there is not None:
        return there
    return write_dataset(
        config.output,
        _samples(config, staging, samples),
        videos,
        made,
        limits,
        name=config.name,
        version=config.version,
        progress=progress,
        check_lock=check_lock,
    )


def _what_is_there(
    config: PhotosConfig, made: Provenance, limits: ShardLimits, videos: list[VideoOutcome]
) -> DatasetMetadata | None:
    """The dataset in the output directory, if it equals the one to write: readers may be using it."""
    if not (config.output / DATASET_JSON).is_file():
        return None
    try:
        dataset = Dataset.open(config.output)
        there = dataset.metadata
        same = (there.provenance, there.limits, there.name, there.version) == (
            made,
            limits,
            config.name,
            config.version,
        )
        return there if same and list(dataset.videos()) == videos else None
    except DatasetError:
        return None


def _samples(config: PhotosConfig, staging: StagedPeople, samples: Sequence[Placed]) -> Iterator[Sample]:
    @lru_cache(maxsize=2)  # the samples of a person follow each other
    def of_person(task: PersonTask) -> list[Sample]:
        return staging.samples(task.person, mirrored=task.mirrored)

    for each in samples:
        sample = of_person(each.task)[each.place]
        if sample.record.key != each.key:
            raise BuildError(
                f"the staged file of {each.task.label} changed while it was read. Run the same command again"
            )
        update = {"split": each.split, "license": config.source.license}
        sample = replace(sample, record=sample.record.model_copy(update=update))
        yield sample if config.shards.store_embeddings else without_embedding(sample)


def photographs(tasks: Sequence[PersonTask], staging: StagedPeople) -> Iterator[PhotographOutcome]:
    """The outcome of every photograph, read person by person; mirror images are not listed.

    Raises:
        BuildError: a file cannot be read back.
    """
    for task in tasks:
        if not task.mirrored:
            yield from staging.photographs(task.person)
