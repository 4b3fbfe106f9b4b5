"""From finished videos to the dataset, in canonical order: same videos and settings, same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from faces.registry import Weights
from pipeline.config import Config, digest
from pipeline.errors import BuildError
from pipeline.people import summary
from pipeline.people.assign import Assignment, Placement, Recognition, SplitRequest, assign
from pipeline.people.findings import FILE, PeopleFindings
from pipeline.people.outcomes import without
from pipeline.plan import BuildPlan
from pipeline.progress import Reporter
from pipeline.provenance import code_version
from pipeline.records import StagedSample
from pipeline.report.build import FOLDER
from pipeline.sources.manifest import Video
from pipeline.staging import DamagedStagedFile, Staging
from shards.atomic import OutOfSpace
from shards.canonical import sha256_hex
from shards.heap import frozen_heap
from shards.layout import TOMBSTONES
from shards.metadata import DatasetError, DatasetMetadata, Provenance, ShardLimits
from shards.reader import Dataset
from shards.sample import Sample
from shards.schema import FromSource, IdentityRecord, VideoOutcome
from shards.writer import write_dataset
from storage.ahead import map_ahead
from storage.errors import StorageError
from storage.path import AnyPath


@dataclass(frozen=True)
class Packed:
    """A dataset that is written.

    Attributes:
        metadata: the content of its dataset.json.
        findings: what linking found.
    """

    metadata: DatasetMetadata
    findings: PeopleFindings


@frozen_heap()
def pack(
    config: Config,
    weights: Weights,
    plan: BuildPlan,
    reporter: Reporter,
    check_lock: Callable[[], None] = lambda: None,
) -> Packed:
    """Write the dataset from the staging area.

    Args:
        config: of the build.
        weights: the networks used.
        plan: all of its videos finished.
        reporter: shows progress.
        check_lock: raises BuildError once another build has the output.

    Raises:
        BuildError: finished videos cannot be read back, and were dropped; or the output cannot be written.
        OutOfSpace: the disk is full.
    """
    try:
        return _pack(config, weights, plan, reporter, check_lock)
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
    except StorageError as error:
        raise BuildError(
            f"cannot write the dataset: {error}. The same command again continues with all finished videos"
        ) from error
    except OSError as error:
        raise BuildError(
            f"cannot write the dataset: {error.filename or config.output}: {error.strerror or error}. The "
            "same command again continues with all finished videos"
        ) from error


def check_nothing_erased(output: AnyPath) -> None:
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


def _check_no_tombstones(output: AnyPath, error: DatasetError) -> None:
    if any(output.glob(f"{TOMBSTONES}-*.parquet")):
        raise BuildError(
            f"{output} holds a damaged dataset ({error}) from which samples were erased, and this build could "
            "bring them back. Restore the dataset from a copy, or choose another output"
        ) from error


def _erased(output: AnyPath, generation: int) -> BuildError:
    return BuildError(
        f"{output} holds generation {generation} of a dataset: samples were erased from it, and this build could "
        "bring them back. Choose another output"
    )


def _pack(
    config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
) -> Packed:
    with ThreadPoolExecutor(plan.staging.readers) as pool:
        outcomes: list[VideoOutcome] = []
        rows = summary.Collector()
        for video, (outcome, staged) in zip(
            plan.manifest.videos,
            map_ahead(plan.staging.summary, plan.manifest.videos, pool, 4 * plan.staging.readers),
            strict=True,
        ):
            outcomes.append(_in_present_words(outcome, video))
            if len(staged):
                rows.add(summary.of_video(staged, video, outcome))
        identities = rows.summary()
        assignment = _assign(
            config,
            weights,
            plan,
            identities,
            reasons={each.video_id: str(each.reason) for each in outcomes if each.reason is not None},
            reporter=reporter,
        )
        outcomes = [without(outcome, assignment.rejections) for outcome in outcomes]
        defining = config.defining(plan.split.digests)
        provenance = Provenance(
            config=defining,
            config_digest=digest(defining),
            models={name: model.sha256 for name, model in sorted(weights.items())},
            code_version=code_version(),
            libraries=plan.libraries(),
        )
        videos = {video.video_id: video for video in plan.manifest.videos}
        id_of_video = dict(
            zip(identities["key"].to_pylist(), identities["video_id"].to_pylist(), strict=True)
        )
        order = sorted(assignment.placements, key=lambda key: (assignment.placements[key].split, key))
        by_video = (
            (videos[video_id], list(keys)) for video_id, keys in groupby(order, key=id_of_video.__getitem__)
        )
        samples = _samples(by_video, outcomes, assignment.placements, plan.staging, pool)
        if not config.shards.store_embeddings:
            samples = map(_without_embedding, samples)
        limits = ShardLimits(max_samples=config.shards.max_samples, max_bytes=config.shards.max_bytes)
        there = _what_is_there(config.output, provenance, limits, outcomes)
        if there is not None:
            reporter.message("the dataset is packed already")
            return Packed(there, assignment.findings)
        # Those of another dataset; the build writes its own beside the report.
        (config.output / FOLDER / FILE).unlink(missing_ok=True)
        with reporter.bar("pack", len(order)) as advance:
            metadata = write_dataset(
                config.output,
                samples,
                outcomes,
                provenance,
                limits,
                name=config.name,
                version=config.version,
                progress=lambda done: advance(done, ""),
                check_lock=check_lock,
            )
        return Packed(metadata, assignment.findings)


def _what_is_there(
    output: AnyPath, provenance: Provenance, limits: ShardLimits, outcomes: list[VideoOutcome]
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


def _in_present_words(outcome: VideoOutcome, video: Video) -> VideoOutcome:
    """The outcome with what the source says of the video now; it changes no image, so nothing is curated again."""
    update = {
        "uri": video.uri,
        "license": video.license,
        "origin": video.origin,
        "attributes": list(video.attributes),
        "source_person": video.source_person,
    }
    return outcome.model_copy(update=update)


def _assign(
    config: Config,
    weights: Weights,
    plan: BuildPlan,
    identities: pa.Table,
    *,
    reasons: Mapping[str, str],
    reporter: Reporter,
) -> Assignment:
    split = SplitRequest(
        config=config.split,
        inputs=plan.split,
        listed=plan.listed,
        reasons=reasons,
    )
    if len(identities):
        reporter.message(f"Linking {len(identities)} identities")
    embedder = config.models.embedder
    recognition = Recognition(embedder, weights[embedder].model.link_cosine)
    assignment = assign(identities, config.people, split, recognition, reporter.bar)
    if len(identities):
        persons = len({placement.person_id for placement in assignment.placements.values()})
        reporter.message(
            f"{len(assignment.rejections)} are left out as duplicates; the other "
            f"{len(assignment.placements)} show {persons} persons"
        )
    for note in assignment.findings.notes:
        if note not in plan.messages:
            reporter.message(note)
    return assignment


def _samples(
    by_video: Iterable[tuple[Video, list[str]]],
    outcomes: list[VideoOutcome],
    placements: Mapping[str, Placement],
    staging: Staging,
    pool: Executor,
) -> Iterator[Sample]:
    by_id = {outcome.video_id: outcome for outcome in outcomes}

    def of_one_video(some: tuple[Video, list[str]]) -> list[Sample]:
        video, keys = some
        staged = {sample.identity.key: sample for sample in staging.samples(video)}
        return [_sample(staged[key], by_id[video.video_id], placements[key]) for key in keys]

    for samples in map_ahead(of_one_video, by_video, pool, 4 * staging.readers):
        yield from samples


def _sample(staged: StagedSample, outcome: VideoOutcome, placement: Placement) -> Sample:
    record = IdentityRecord(
        **{name: value for name, value in staged.identity if name in IdentityRecord.model_fields},
        **{name: getattr(outcome, name) for name in FromSource.model_fields},
        split=placement.split,
        person_id=placement.person_id,
        video_id=outcome.video_id,
    )
    return Sample(record, staged.jpegs, staged.masks, staged.landmarks)


def _without_embedding(sample: Sample) -> Sample:
    """The sample as it is stored without embeddings."""
    images = [image.model_copy(update={"identity_cosine": None}) for image in sample.record.images]
    update = {"embedder": None, "embedding": None, "images": images}
    return replace(sample, record=sample.record.model_copy(update=update))
