"""What packing knows of all finished videos: columns, gathered by tasks that read some staged files each.

Identities stay in memory, because linking compares all of them. Rows of the videos table go through a temporary
file: a million of them would fill the driver's memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cluster.workers import Workers
from pipeline.packing import measures
from pipeline.people import summary
from pipeline.people.outcomes import without
from pipeline.rejection import Rejection
from pipeline.sources.manifest import Video
from pipeline.staging import Staging
from shards.canonical import sha256_hex
from shards.heap import frozen_heap
from shards.layout import VIDEOS
from shards.schema import VideoOutcome
from shards.tables import SCHEMAS, Row, rows_of, video_outcome, video_row
from shards.writer import check_outcome
from storage.ahead import map_ahead
from storage.scratch import scratch_folder

CHUNK = 256
"""Staged files that a task reads: about a megabyte of rows."""

SIZES = pa.schema(
    [
        *measures.MEASURES,
        pa.field("video", pa.int64(), nullable=False),
        pa.field("source_bytes", pa.int64(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
    ]
)
"""For each identity: its measures, the place of its video among all, and length and digest of what the identities
of the video share in their records."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """What the staged files of some consecutive videos hold.

    Attributes:
        identities: their rows of the summary (`pipeline.people.summary`).
        sizes: of the same identities, in the same order; `video` counts within the chunk.
        videos: rows of the videos table.
    """

    identities: pa.Table
    sizes: pa.Table
    videos: pa.Table


@dataclass(frozen=True, eq=False)
class Collected:
    """What is known of all finished videos.

    Attributes:
        identities: the summary, sorted by key.
        sizes: `SIZES` of the same identities, in the same order.
        reasons: of the videos that are not accepted, by id.
        videos: rows of the videos table.
    """

    identities: pa.Table
    sizes: pa.Table
    reasons: dict[str, str]
    videos: SpooledVideos


def collect(
    videos: list[Video],
    staging: Staging,
    workers: Workers,
    spool: SpooledVideos,
    *,
    check_lock: Callable[[], None],
    progress: Callable[[int], None],
) -> Collected:
    """Read the staged files of all videos.

    Args:
        videos: all finished, sorted by id.
        staging: holds them.
        workers: run the tasks.
        spool: takes the rows of the videos table.
        check_lock: raises BuildError once another build has the output.
        progress: called with the number of videos read so far.

    Raises:
        DamagedStagedFile: one of the files is damaged.
        BuildError: one cannot be read.
    """
    chunks = [videos[start : start + CHUNK] for start in range(0, len(videos), CHUNK)]
    identities = summary.Collector()
    sizes: list[pa.Table] = []
    reasons: dict[str, str] = {}
    done = 0
    read = partial(read_chunk, staging, staging.threads(alone=workers.alone))
    for number, chunk in workers.run(read, chunks, check_lock):
        identities.add(chunk.identities)
        first = pa.scalar(number * CHUNK, pa.int64())
        place = chunk.sizes.schema.get_field_index("video")
        shifted = pc.add(chunk.sizes["video"], first)
        sizes.append(chunk.sizes.set_column(place, SIZES.field("video"), shifted))
        lost = chunk.videos.filter(pc.is_valid(chunk.videos["reason"]))
        reasons.update(zip(lost["video_id"].to_pylist(), lost["reason"].to_pylist(), strict=True))
        spool.add(number, chunk.videos)
        done += len(chunk.videos)
        progress(done)
    return Collected(
        identities.summary(),
        pa.concat_tables([SIZES.empty_table(), *sizes]).sort_by("key").combine_chunks(),
        reasons,
        spool,
    )


@frozen_heap()
def read_chunk(staging: Staging, threads: int, videos: list[Video]) -> Chunk:
    """Read the staged files of some videos: the task.

    Args:
        staging: holds them.
        threads: that read them.
        videos: consecutive ones.

    Raises:
        DamagedStagedFile: one of the files is damaged.
        BuildError: one cannot be read.
    """
    identities = summary.Collector()
    sizes: list[pa.Table] = []
    rows: list[Row] = []
    with ThreadPoolExecutor(threads) as pool:
        read = map_ahead(staging.summary, videos, pool, 4 * threads)
        for place, (video, (outcome, staged, measured)) in enumerate(zip(videos, read, strict=True)):
            outcome = in_present_words(outcome, video)  # noqa: PLW2901
            check_outcome(outcome)
            rows.append(video_row(outcome))
            if not len(staged):
                continue
            identities.add(summary.of_video(staged, video, outcome))
            shared = measures.of_video(outcome)
            sizes.append(_with_video(measured, place, len(shared), sha256_hex(shared)))
    return Chunk(
        identities.summary(),
        pa.concat_tables([SIZES.empty_table(), *sizes]).combine_chunks(),
        pa.Table.from_pylist(rows, SCHEMAS[VIDEOS]),
    )


def in_present_words(outcome: VideoOutcome, video: Video) -> VideoOutcome:
    """The outcome with what the source says of the video now; it changes no image, so nothing is curated again."""
    update = {
        "uri": video.uri,
        "license": video.license,
        "origin": video.origin,
        "attributes": list(video.attributes),
        "source_person": video.source_person,
    }
    return outcome.model_copy(update=update)


def _with_video(measured: pa.Table, video: int, length: int, digest: str) -> pa.Table:
    facts = {"video": video, "source_bytes": length, "source_sha256": digest}
    columns = [
        measured[field.name]
        if field.name in measures.MEASURES.names
        else pa.repeat(pa.scalar(facts[field.name], field.type), len(measured))
        for field in SIZES
    ]
    return pa.table(columns, schema=SIZES)


class SpooledVideos:
    """Rows of the videos table in a temporary file, gone with the `with` block; added in any order.

    `tables` gives them in order, after the rejections of some identities.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._numbers: list[int] = []

    def __enter__(self) -> SpooledVideos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, number: int, rows: pa.Table) -> None:
        """Keep the rows of a chunk."""
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(self._path(number)), "wb") as sink,
            pa.ipc.new_file(sink, rows.schema, options=options) as writer,
        ):
            writer.write_table(rows)
        self._numbers.append(number)

    def tables(self, rejections: Mapping[str, Rejection]) -> Iterator[pa.Table]:
        """The rows chunk by chunk, sorted by video_id.

        Args:
            rejections: of identities, by key; their tracks name no sample any more.
        """
        for number in sorted(self._numbers):
            with pa.OSFile(str(self._path(number)), "rb") as source, pa.ipc.open_file(source) as reader:
                rows = reader.read_all()
            yield _rejected(rows, rejections) if rejections else rows

    def outcomes(self, rejections: Mapping[str, Rejection]) -> Iterator[VideoOutcome]:
        """The same as records."""
        for rows in self.tables(rejections):
            yield from map(video_outcome, rows_of(rows))

    def _path(self, number: int) -> Path:
        return Path(self._folder.name, f"{number}.arrow")


def _rejected(rows: pa.Table, rejections: Mapping[str, Rejection]) -> pa.Table:
    """The rows, those of videos with rejected identities made anew."""
    tracks = pc.list_flatten(rows["tracks"].combine_chunks())
    keys = pc.struct_field(tracks, "key")
    if not pc.any(pc.is_in(keys, pa.array(list(rejections), pa.string()))).as_py():
        return rows
    changed = []
    for row in rows_of(rows):
        if not any(track["key"] in rejections for track in row["tracks"]):
            changed.append(row)
            continue
        outcome = without(video_outcome(row), rejections)
        check_outcome(outcome)
        changed.append(video_row(outcome))
    return pa.Table.from_pylist(changed, SCHEMAS[VIDEOS])
