"""From finished videos to the dataset, in canonical order: same videos and settings, same bytes."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from faces.registry import Weights
from pipeline.cluster.task_nodes import FailedOnNodes
from pipeline.cluster.workers import InProcess, Workers
from pipeline.config import Config, digest
from pipeline.errors import BuildError
from pipeline.packing.collect import Collected, SpooledVideos, collect
from pipeline.packing.plan import ShardPlan, plan_shards, tasks
from pipeline.packing.shard import OWNER, ShardWriter, part_name, parts_there
from pipeline.people.assign import Assignment, Recognition, SplitRequest, assign
from pipeline.people.findings import FILE, PeopleFindings
from pipeline.plan import BuildPlan
from pipeline.progress import Reporter
from pipeline.provenance import code_version
from pipeline.rejection import Rejection
from pipeline.report.build import FOLDER
from pipeline.staging import DamagedStagedFile
from shards.assemble import Description, Tally, assemble, clear
from shards.atomic import OutOfSpace, remove_files, remove_temporaries, write_bytes
from shards.canonical import sha256_hex
from shards.heap import frozen_heap
from shards.layout import INDEX, TOMBSTONES, VIDEOS
from shards.metadata import DatasetError, DatasetMetadata, Provenance, ShardLimits
from shards.reader import Dataset
from shards.schema import VideoOutcome
from shards.streamed import StreamedDataset
from shards.tables import regrouped, video_outcome
from shards.write_shard import ShardPart, read_part
from storage.ahead import map_ahead
from storage.errors import StorageError
from storage.path import AnyPath

PARTS_AHEAD = 8
"""Parts of shards, of about a megabyte each, that are read ahead of the tables."""
Rejections = Mapping[str, Rejection]


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
    *,
    check_lock: Callable[[], None] = lambda: None,
    workers: Workers | None = None,
) -> Packed:
    """Write the dataset from the staging area.

    Args:
        config: of the build.
        weights: the networks used.
        plan: all of its videos finished.
        reporter: shows progress.
        check_lock: raises BuildError once another build has the output.
        workers: read staged files and write shards; this process when None.

    Raises:
        BuildError: finished videos cannot be read back, and were dropped; or the output cannot be written.
        OutOfSpace: the disk is full.
    """
    try:
        return _pack(config, weights, plan, reporter, check_lock=check_lock, workers=workers or InProcess())
    except DamagedStagedFile as error:
        raise _damaged(plan, error, []) from error
    except FailedOnNodes as error:
        if not isinstance(error.error, DamagedStagedFile):
            raise
        raise _damaged(plan, error.error, error.nodes) from error.error
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


def _damaged(plan: BuildPlan, error: DamagedStagedFile, nodes: list[str]) -> BuildError:
    """Drop the videos that this process cannot read back either.

    Args:
        plan: all of its videos finished.
        error: of one of them.
        nodes: names of those where it could not be read; none when it was this process.
    """
    damaged = [video for video in plan.manifest.videos if not plan.staging.is_readable(video)]
    where = f" on node {' and '.join(nodes)}" if nodes else ""
    if not damaged:
        return BuildError(
            f"the staged file of {error.video.video_id} cannot be read back{where} ({error.why}), but this "
            "process can read it now. Nothing was dropped. Check the memory, the disk and the network"
            f"{where}, then run the same command again; it continues"
        )
    plan.staging.forget(damaged)
    return BuildError(
        f"the staged files of {len(damaged)} finished videos cannot be read back, such as "
        f"{error.video.video_id} ({error.why}). The disk may be damaged. The files were dropped: the same "
        "command again curates these videos again"
    )


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


def _check_no_tombstones(output: AnyPath, error: ValueError) -> None:
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
    config: Config,
    weights: Weights,
    plan: BuildPlan,
    reporter: Reporter,
    *,
    check_lock: Callable[[], None],
    workers: Workers,
) -> Packed:
    staging, videos = plan.staging, plan.manifest.videos
    with SpooledVideos() as spool:
        # What is known of all videos, as columns; then who is who.
        with reporter.bar("collect", len(videos), "videos") as advance:
            collected = collect(
                videos,
                staging,
                workers,
                spool,
                check_lock=check_lock,
                progress=lambda done: advance(done, ""),
            )
        if reporter.monitor.lacks_counts:
            reporter.monitor.outcomes(_outcomes(spool))
        with reporter.operator("link", len(collected.identities), "identities") as linking:
            assignment = _assign(config, weights, plan, collected, reporter)
            linking.done = len(collected.identities)
        placements, rejections = assignment.placements, assignment.rejections
        defining = config.defining(plan.split.digests)
        provenance = Provenance(
            config=defining,
            config_digest=digest(defining),
            models={name: model.sha256 for name, model in sorted(weights.items())},
            code_version=code_version(),
            libraries=plan.libraries(),
        )
        limits = ShardLimits(max_samples=config.shards.max_samples, max_bytes=config.shards.max_bytes)
        description = Description(provenance, limits, config.name, config.version)
        there = _what_is_there(config.output, description, spool, rejections)
        if there is not None:
            reporter.message("the dataset is packed already")
            return Packed(there, assignment.findings)

        # Those of another dataset; the build writes its own beside the report.
        (config.output / FOLDER / FILE).unlink(missing_ok=True)

        # Which samples are in which shard, and which shards an earlier run has written.
        embeddings = config.shards.store_embeddings
        shards = plan_shards(collected.sizes, placements, limits, embeddings=embeddings)
        threads = staging.threads(alone=workers.alone)
        writer = ShardWriter(config.output, staging, embeddings, secrets.token_hex(8), threads)
        check_lock()
        _begin(writer, shards)

        # The shards, in any order; then the tables and dataset.json.
        with reporter.bar("pack", len(placements), "identities") as advance:
            done = 0
            todo = tasks(shards, collected.sizes, placements, videos)
            for _, samples in workers.run(writer, todo, check_lock):
                done += samples
                advance(done, "")
        metadata = _assembled(writer, shards, spool.tables(rejections), description, check_lock)
        return Packed(metadata, assignment.findings)


def _outcomes(spool: SpooledVideos) -> Counter[tuple[str, str]]:
    """How many videos have each status and reason; the reason of accepted ones is empty."""
    found: Counter[tuple[str, str]] = Counter()
    for table in spool.tables({}):
        groups = (
            table.select(["status", "reason"]).group_by(["status", "reason"]).aggregate([([], "count_all")])
        )
        for row in groups.to_pylist():
            found[row["status"], row["reason"] or ""] += row["count_all"]
    return found


def _begin(writer: ShardWriter, shards: list[ShardPlan]) -> None:
    """Take the output; remove what is not of this dataset: dataset.json first, other shards and parts.

    The owner is written first: from then on a task of an earlier driver, which was killed, writes nothing.
    """
    write_bytes(writer.folder / OWNER, writer.token.encode())
    wanted = {part_name(shard): shard.name for shard in shards}
    found = parts_there(writer.folder) - {OWNER}
    kept = {name for part, name in wanted.items() if part in found}
    clear(writer.root, keep=kept)
    remove_temporaries(writer.folder)
    remove_files(writer.folder, sorted(found - wanted.keys()))


def _assembled(
    writer: ShardWriter,
    shards: list[ShardPlan],
    videos: Iterable[pa.Table],
    description: Description,
    check_lock: Callable[[], None],
) -> DatasetMetadata:
    """Make the dataset of the shards that are written, and remove what was kept of them."""
    tally = Tally()
    # What a task of an earlier driver wrote that had looked at the owner just before it changed.
    clear(writer.root, keep={shard.name for shard in shards})

    def parts(pool: Executor) -> Iterator[ShardPart]:
        for part in map_ahead(read_part, map(writer.part, shards), pool, PARTS_AHEAD):
            check_lock()
            tally.admit_part(part)
            yield part

    with ThreadPoolExecutor(PARTS_AHEAD) as pool:
        metadata = assemble(writer.root, parts(pool), videos, tally, description, check_lock=check_lock)
    remove_files(writer.folder, [OWNER, *map(part_name, shards)])
    return metadata


def _what_is_there(
    output: AnyPath, description: Description, videos: SpooledVideos, rejections: Rejections
) -> DatasetMetadata | None:
    """The dataset in the output directory, if it equals the one to write: readers may be using it.

    Raises:
        BuildError: samples were erased from it, so a new dataset in its place could bring them back.
    """
    try:
        dataset = StreamedDataset.open(output)
        deque(dataset.batches(INDEX, ["key"]), 0)  # raises where the index cannot be read
        metadata = dataset.metadata
        same = (metadata.provenance, metadata.limits) == (description.provenance, description.limits)
        if metadata.generation == 0:
            there = same and _equal(dataset.batches(VIDEOS), videos.tables(rejections))
            return dataset.metadata if there else None
        erased = {key for table in dataset.batches(TOMBSTONES) for key in table["key_sha256"].to_pylist()}
        stored = [video_outcome(row) for table in dataset.batches(VIDEOS) for row in table.to_pylist()]
    except (DatasetError, ValidationError) as error:
        _check_no_tombstones(output, error)
        return None
    if same and _without_erased(list(videos.outcomes(rejections)), stored, erased) == stored:
        return dataset.metadata
    raise _erased(output, dataset.metadata.generation)


def _equal(some: Iterable[pa.Table], others: Iterable[pa.Table]) -> bool:
    """Whether two tables in parts have the same rows; one group of each is in memory."""
    return all(
        one is not None and other is not None and one.equals(other)
        for one, other in zip_longest(regrouped(some), regrouped(others))
    )


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


def _assign(
    config: Config, weights: Weights, plan: BuildPlan, collected: Collected, reporter: Reporter
) -> Assignment:
    split = SplitRequest(
        config=config.split, inputs=plan.split, listed=plan.listed, reasons=collected.reasons
    )
    identities = collected.identities
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
