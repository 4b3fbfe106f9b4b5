"""Writes one shard from the staged files of its videos: a task, which runs in this process or on a cluster.

    <staging directory>/packed/owner                                which packing may write shards
    <staging directory>/packed/<split>-<number>-<content>.parquet   the rows of a shard that is written

The part of a shard is kept under the digest of everything that its bytes depend on. So a later run knows that a
shard is the one that it would write, once its bytes have the digest that the part has.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipeline.errors import BuildError
from pipeline.packing.collect import in_present_words
from pipeline.packing.plan import ShardPlan, ShardTask
from pipeline.people.assign import Placement
from pipeline.records import StagedSample
from pipeline.sources.manifest import Video
from pipeline.staging import Staging
from shards.heap import frozen_heap
from shards.layout import number_of, split_of
from shards.sample import Sample
from shards.schema import FromSource, IdentityRecord, VideoOutcome
from shards.write_shard import (
    EncodedSample,
    ShardPart,
    check_record,
    encode_sample,
    is_written,
    read_part,
    write_part,
    write_shard,
)
from storage.ahead import map_ahead
from storage.errors import NoSuchFile
from storage.path import AnyPath

FOLDER = "packed"
OWNER = "owner"


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of one packing.

    Attributes:
        root: of the dataset.
        staging: the finished videos.
        embeddings: whether records contain them.
        token: of this packing; a task of an earlier one, whose driver was killed, must not write any more.
        threads: that read staged files.
    """

    root: AnyPath
    staging: Staging
    embeddings: bool
    token: str
    threads: int

    @property
    def folder(self) -> AnyPath:
        """Where parts are kept."""
        return self.staging.folder / FOLDER

    def part(self, plan: ShardPlan) -> AnyPath:
        """The file of a shard's part."""
        return self.folder / part_name(plan)

    @frozen_heap()
    def __call__(self, task: ShardTask) -> int:
        """Write a shard and its part, unless they are there.

        Returns:
            The number of its samples.

        Raises:
            DamagedStagedFile: a staged file is damaged.
            BuildError: one cannot be read, or another build has the output.
            OutOfSpace: the disk is full.
            StorageError: the object store does not answer.
        """
        if not self._is_done(task.plan):
            part = self._write(task)
            self._check_owner()
            write_part(self.part(task.plan), part)
        return task.plan.samples

    def _is_done(self, plan: ShardPlan) -> bool:
        path = self.part(plan)
        if not path.is_file():
            return False
        try:
            entry = read_part(path).entry
        except ValueError:
            return False
        return entry.name == plan.name and is_written(self.root, entry)

    def _write(self, task: ShardTask) -> ShardPart:
        def before_commit(size: int) -> None:
            if size != task.plan.bytes:
                raise AssertionError(f"{task.plan.name} has {size:,} bytes, {task.plan.bytes:,} were planned")
            self._check_owner()

        with ThreadPoolExecutor(self.threads) as pool:
            return write_shard(
                self.root,
                task.plan.name,
                self._samples(task, pool, 4 * self.threads),
                before_commit=before_commit,
            )

    def _samples(self, task: ShardTask, pool: ThreadPoolExecutor, ahead: int) -> Iterator[EncodedSample]:
        for samples in map_ahead(self._of_video, task.videos, pool, ahead):
            yield from samples

    def _of_video(self, some: tuple[Video, tuple[tuple[str, Placement], ...]]) -> list[EncodedSample]:
        video, placements = some
        outcome, staged = self.staging.samples(video)
        outcome = in_present_words(outcome, video)
        by_key = {sample.identity.key: sample for sample in staged}
        found = []
        for key, placement in placements:
            sample = _sample(by_key[key], outcome, placement)
            sample = sample if self.embeddings else without_embedding(sample)
            check_record(sample.record, outcome)
            sample.check()
            found.append(encode_sample(sample))
        return found

    def _check_owner(self) -> None:
        path = self.folder / OWNER
        try:
            owner = path.read_text()
        except FileNotFoundError:
            owner = ""
        if owner != self.token:
            raise BuildError(
                f"another build writes to {self.root}, or {path} was removed. Run the same command again; it "
                "continues"
            )


def part_name(plan: ShardPlan) -> str:
    """Name of the file of a shard's part."""
    return f"{split_of(plan.name).value}-{number_of(plan.name):06d}-{plan.content[:32]}.parquet"


def parts_there(folder: AnyPath) -> set[str]:
    """Names of the parts that earlier packings have kept."""
    try:
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except (NoSuchFile, FileNotFoundError):
        return set()


def _sample(staged: StagedSample, outcome: VideoOutcome, placement: Placement) -> Sample:
    record = IdentityRecord(
        **{name: value for name, value in staged.identity if name in IdentityRecord.model_fields},
        **{name: getattr(outcome, name) for name in FromSource.model_fields},
        split=placement.split,
        person_id=placement.person_id,
        video_id=outcome.video_id,
    )
    return Sample(record, staged.jpegs, staged.masks, staged.landmarks)


def without_embedding(sample: Sample) -> Sample:
    """The sample as it is stored without embeddings."""
    images = [image.model_copy(update={"identity_cosine": None}) for image in sample.record.images]
    update = {"embedder": None, "embedding": None, "images": images}
    return replace(sample, record=sample.record.model_copy(update=update))
