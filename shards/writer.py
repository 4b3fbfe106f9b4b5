"""Writes a dataset: shards in canonical order, the tables, and dataset.json last.

The output does not depend on the clock, the machine or earlier files of the directory, so equal samples give equal
bytes. A directory has no dataset.json from the first change until all other files are complete on the disk.

`write_dataset` does all of it in one process. A build writes shards anywhere (`shards.write_shard`) and puts the
dataset together afterwards (`shards.assemble`): the same code, and the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import groupby

import pyarrow as pa

from shards.assemble import Description, Tally, assemble, clear
from shards.canonical import model_json
from shards.layout import VIDEOS
from shards.metadata import DatasetMetadata, Provenance, ShardLimits
from shards.placement import ShardPlaces
from shards.record_checks import validate_video
from shards.sample import Sample
from shards.schema import VideoOutcome
from shards.tables import ROW_GROUP, SCHEMAS, video_row
from shards.write_shard import (
    EncodedSample,
    ShardPart,
    check_format_version,
    check_record,
    encode_sample,
    write_shard,
)
from storage.ahead import map_ahead
from storage.path import AnyPath

AHEAD = 8
"""Samples whose files are checked and wait to be written, at most."""


def write_dataset(
    root: AnyPath,
    samples: Iterable[Sample],
    videos: Sequence[VideoOutcome],
    provenance: Provenance,
    limits: ShardLimits,
    *,
    name: str = "mfhq",
    version: str = "1.0.0",
    progress: Callable[[int], None] | None = None,
    check_lock: Callable[[], None] = lambda: None,
) -> DatasetMetadata:
    """Write a whole dataset into `root`, in place of one that is there.

    Args:
        root: made when missing. Files that are not part of a dataset stay, except that `train` and `test` must
            contain no others.
        samples: sorted by (split, key), so `test` before `train`; read once, `AHEAD` held in memory.
        videos: one outcome for each input video, in any order.
        provenance: how the samples were made.
        limits: where to cut shards.
        name: of the dataset; it does not change the names of files.
        version: of the dataset, a semantic version.
        progress: called after each sample with the number written so far.
        check_lock: called before anything is removed, after each sample and before dataset.json is written; raises
            once another writer has `root`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: samples or videos contradict their records, each other or the order. `root` then contains no
            dataset, unless the error is in `videos`, which are checked before any change.
        FileExistsError: `train` or `test` contains files that are not shards.
        OutOfSpace: the disk or the quota is full.
    """
    by_id = _checked_videos(videos)
    model_json(provenance)
    check_lock()
    clear(root)
    tally = Tally()
    written = 0

    def one_more() -> None:
        nonlocal written
        written += 1
        check_lock()
        if progress is not None:
            progress(written)

    def parts(pool: Executor) -> Iterator[ShardPart]:
        placed = _placed(_checked_samples(samples, by_id, tally, pool), limits)
        for shard, group in groupby(placed, key=lambda item: item[0]):
            yield write_shard(root, shard, (sample for _, sample in group), written=one_more)

    description = Description(provenance, limits, name, version)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return assemble(root, parts(pool), _video_tables(by_id), tally, description, check_lock=check_lock)


def _checked_videos(videos: Sequence[VideoOutcome]) -> dict[str, VideoOutcome]:
    by_id: dict[str, VideoOutcome] = {}
    for video in videos:
        if video.video_id in by_id:
            raise ValueError(f"video {video.video_id} has more than one outcome")
        check_outcome(video)
        by_id[video.video_id] = video
    return by_id


def check_outcome(video: VideoOutcome) -> None:
    """Check that an outcome may be stored.

    Raises:
        ValueError: it contradicts itself.
    """
    if errors := validate_video(video):
        raise ValueError(f"video {video.video_id}: {'; '.join(errors)}")


def _checked_samples(
    samples: Iterable[Sample], videos: dict[str, VideoOutcome], tally: Tally, pool: Executor
) -> Iterator[EncodedSample]:
    for sample, error in map_ahead(_checked_files, samples, pool, AHEAD):
        record = sample.record
        check_format_version(record)
        tally.admit(record.split, record.key, record.person_id, record.video_id)
        check_record(record, videos.get(record.video_id))
        if error is not None:
            raise error
        yield encode_sample(sample)


def _checked_files(sample: Sample) -> tuple[Sample, ValueError | None]:
    """The sample, and what is wrong with its files: errors of its place and its record come first."""
    try:
        sample.check()
    except ValueError as error:
        return sample, error
    return sample, None


def _placed(samples: Iterable[EncodedSample], limits: ShardLimits) -> Iterator[tuple[str, EncodedSample]]:
    places = ShardPlaces(limits)
    for sample in samples:
        yield places.place(sample.record.split, sample.length), sample


def _video_tables(videos: dict[str, VideoOutcome]) -> Iterator[pa.Table]:
    ids = sorted(videos)
    for start in range(0, len(ids), ROW_GROUP):
        rows = [video_row(videos[video_id]) for video_id in ids[start : start + ROW_GROUP]]
        yield pa.Table.from_pylist(rows, SCHEMAS[VIDEOS])
