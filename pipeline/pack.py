"""From finished videos to the dataset, in canonical order: same videos and settings, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from faces.registry import Weights
from pipeline.config import Config, digest
from pipeline.errors import BuildError
from pipeline.linking import Identity, Placement, assign
from pipeline.plan import BuildPlan
from pipeline.progress import Reporter
from pipeline.provenance import code_version
from pipeline.records import StagedIdentity
from pipeline.sources.manifest import Video
from pipeline.staging import DamagedStagedFile, StagedSample, Staging
from shards.atomic import OutOfSpace
from shards.canonical import sha256_hex
from shards.heap import frozen_heap
from shards.layout import TOMBSTONES
from shards.metadata import DatasetError, DatasetMetadata, Provenance, ShardLimits
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import FromSource, IdentityRecord, VideoOutcome
from shards.writer import write_dataset


@frozen_heap()
def pack(
    config: Config,
    weights: Weights,
    plan: BuildPlan,
    reporter: Reporter,
) -> DatasetMetadata:
    """Write the dataset from the staging area.

    Args:
        config: of the build.
        weights: the networks used.
        plan: all of its videos finished.
        reporter: shows progress.

    Raises:
        BuildError: finished videos cannot be read back, and were dropped; or the output cannot be written.
        OutOfSpace: the disk is full.
    """
    try:
        return _pack(config, weights, plan, reporter)
    except DamagedStagedFile as error:
        damaged = [video for video in plan.manifest.videos if not plan.staging.is_readable(video)]
        plan.staging.forget(damaged)
        raise BuildError(
            f"the staged files of {len(damaged)} finished videos cannot be read back, such as "
            f"{error.video.video_id} ({error.why}). The disk may be damaged. The files were dropped: the same "
            "command again curates these videos again"
        ) from error
    except OutOfSpace:
        raise
    except OSError as error:
        raise BuildError(
            f"cannot write the dataset: {error.filename or config.output}: {error.strerror or error}. The "
            "same command again continues with all finished videos"
        ) from error


def check_nothing_erased(output: Path) -> None:
    """Check, before hours of work, that a dataset there may be replaced by one with more videos.

    Raises:
        BuildError: samples were erased from it, or may have been.
    """
    try:
        generation = Dataset.open(output).metadata.generation
    except DatasetError as error:
        _check_no_tombstones(output, error)
        return
    if generation:
        raise _erased(output, generation)


def _check_no_tombstones(output: Path, error: DatasetError) -> None:
    if any(output.glob(f"{TOMBSTONES}-*.parquet")):
        raise BuildError(
            f"{output} holds a damaged dataset ({error}) from which samples were erased, and this build could "
            "bring them back. Restore the dataset from a copy, or choose another output"
        ) from error


def _erased(output: Path, generation: int) -> BuildError:
    return BuildError(
        f"{output} holds generation {generation} of a dataset: samples were erased from it, and this build could "
        "bring them back. Choose another output"
    )


def _pack(config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter) -> DatasetMetadata:
    staged = {video.video_id: video for video in plan.manifest.videos}
    # What the source says of a video changes no image, so its present word applies, not that of the curation.
    outcomes = [
        plan.staging.outcome(video).model_copy(
            update={
                "uri": video.uri,
                "license": video.license,
                "origin": video.origin,
                "attributes": list(video.attributes),
                "source_person": video.source_person,
            }
        )
        for video in plan.manifest.videos
    ]
    identities = [
        _for_linking(identity, outcome)
        for outcome in outcomes
        if outcome.identities
        for identity in plan.staging.identities(staged[outcome.video_id])
    ]
    assignment = assign(outcomes, identities, config.people, config.split)
    defining = config.defining()
    provenance = Provenance(
        config=defining,
        config_digest=digest(defining),
        models={name: model.sha256 for name, model in sorted(weights.items())},
        code_version=code_version(),
        libraries=plan.libraries(),
    )
    of_video = {identity.key: staged[identity.video_id] for identity in identities}
    order = sorted(assignment.placements, key=lambda key: (assignment.placements[key].split, key))
    samples = _samples(order, of_video, assignment.placements, assignment.outcomes, plan.staging)
    if not config.shards.store_embeddings:
        samples = map(_without_embedding, samples)
    limits = ShardLimits(max_samples=config.shards.max_samples, max_bytes=config.shards.max_bytes)
    there = _what_is_there(config.output, provenance, limits, assignment.outcomes)
    if there is not None:
        reporter.message("the dataset is packed already")
        return there
    with reporter.bar("pack", len(order)) as advance:
        return write_dataset(
            config.output,
            samples,
            assignment.outcomes,
            provenance,
            limits,
            name=config.name,
            version=config.version,
            progress=lambda done: advance(done, ""),
        )


def _what_is_there(
    output: Path, provenance: Provenance, limits: ShardLimits, outcomes: list[VideoOutcome]
) -> DatasetMetadata | None:
    """The dataset in the output directory, if it equals the one to write: readers may be using it.

    Raises:
        BuildError: samples were erased from it, so a new dataset in its place could bring them back.
    """
    try:
        dataset = Dataset.open(output)
        videos = list(dataset.videos())
    except DatasetError as error:
        _check_no_tombstones(output, error)
        return None
    same = (dataset.metadata.provenance, dataset.metadata.limits) == (provenance, limits)
    if dataset.metadata.generation == 0:
        return dataset.metadata if same and videos == outcomes else None
    erased = set(dataset.tombstones()["key_sha256"].to_pylist())
    if same and _without_erased(outcomes, videos, erased) == videos:
        return dataset.metadata
    raise _erased(output, dataset.metadata.generation)


def _without_erased(
    outcomes: list[VideoOutcome], there: list[VideoOutcome], erased: set[str]
) -> list[VideoOutcome]:
    """The outcomes as the erasure left them: what it changed is taken from those in the dataset."""
    by_id = {video.video_id: video for video in there}
    found = []
    for outcome in outcomes:
        gone = {t.track for t in outcome.tracks if t.key and sha256_hex(t.key.encode()) in erased}
        video = by_id.get(outcome.video_id)
        if gone and video is not None:
            tracks = {track.track: track for track in video.tracks}
            update: dict[str, Any] = {
                name: getattr(video, name) for name in ("status", "reason", "detail", "identities")
            }
            update["tracks"] = [
                tracks.get(track.track, track) if track.track in gone else track for track in outcome.tracks
            ]
            outcome = outcome.model_copy(update=update)  # noqa: PLW2901
        found.append(outcome)
    return found


def _for_linking(identity: StagedIdentity, outcome: VideoOutcome) -> Identity:
    scores = [
        -image.quality.value if image.quality.higher_is_better else image.quality.value
        for image in identity.images
    ]
    return Identity(
        key=identity.key,
        video_id=outcome.video_id,
        origin=outcome.origin,
        embedding=np.array(identity.embedding, dtype=np.float32),
        badness=sum(scores) / len(scores),
    )


def _samples(
    order: list[str],
    of_video: dict[str, Video],
    placements: dict[str, Placement],
    outcomes: list[VideoOutcome],
    staging: Staging,
) -> Iterator[Sample]:
    by_id = {outcome.video_id: outcome for outcome in outcomes}

    @lru_cache(maxsize=1)  # the identities of one video are consecutive, unless they are in both splits
    def staged(video: Video) -> dict[str, StagedSample]:
        return {sample.identity.key: sample for sample in staging.samples(video)}

    for key in order:
        video = of_video[key]
        found = staged(video)[key]
        outcome, placement = by_id[video.video_id], placements[key]
        record = IdentityRecord(
            **dict(found.identity),
            **outcome.model_dump(include=set(FromSource.model_fields)),
            split=placement.split,
            person_id=placement.person_id,
            video_id=outcome.video_id,
        )
        yield Sample(record, found.jpegs, found.masks)


def _without_embedding(sample: Sample) -> Sample:
    """The sample as it is stored without embeddings."""
    images = [image.model_copy(update={"identity_cosine": None}) for image in sample.record.images]
    update = {"embedder": None, "embedding": None, "images": images}
    return replace(sample, record=sample.record.model_copy(update=update))
