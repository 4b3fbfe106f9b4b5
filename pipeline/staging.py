"""Finished videos, kept until the dataset is packed; a build resumes only from them.

    <output>/.staging/<curation digest>/<2 hex>/<32 hex>.parquet

`pipeline/reuse.py` decides when the files of another curation are used as well.

One file contains one video's outcome and images, and appears whole or not at all, so an existing file means that
the video is done. Its name comes from the video's id, its part of its file, and the file's size and time of
change: what was replaced is curated again, and two workers that write the same video differ only in its timings.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from pipeline.errors import BuildError
from pipeline.layout import STAGING
from pipeline.packing.measures import MEASURES, measured
from pipeline.people.summary import STAGED, staged_rows
from pipeline.records import StagedIdentity, StagedSample, Timeline
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo
from shards.atomic import named_when_full, remove_temporaries, write_bytes, write_parquet
from shards.schema import VideoOutcome
from storage.path import AnyPath, ObjectPath
from storage.store import PARALLEL

FOLDER = STAGING
STARTS = "starts"
"""Beside the finished videos: a line for each start of an analysis that has not ended yet, with its node."""
CANCELLED = "-"
"""Before the name of a node: a start there does not count."""
MEMORY = "memory"
"""Such a line instead: the memory ran out."""
ABANDONED_AFTER_S = 3600.0
"""A temporary file this old has no writer any more: a part is written within seconds."""

_IMAGES = pa.list_(pa.list_(pa.binary()))
_SCHEMA = pa.schema(
    [
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("seconds", pa.string(), nullable=False),
        pa.field("identities", pa.list_(pa.string()), nullable=False),
        pa.field("summary", pa.list_(pa.struct(list(STAGED))), nullable=False),
        pa.field("measures", pa.list_(pa.struct(list(MEASURES))), nullable=False),
        pa.field("jpegs", _IMAGES, nullable=False),
        pa.field("masks", _IMAGES, nullable=False),
        pa.field("landmarks", pa.list_(pa.binary()), nullable=False),
        pa.field("timeline", pa.string(), nullable=False),
    ]
)
LATER_COLUMNS = frozenset({"measures", "timeline"})
"""Columns that files of older versions lack."""
LARGE_COLUMNS = frozenset({"jpegs", "masks", "landmarks", "timeline"})
SMALL_READ, LARGE_READ = 2**16, 2**22
"""Bytes that are read at a time where only records are wanted, and where nearly all of the file is."""
_SECONDS = TypeAdapter(dict[str, float])


class DamagedStagedFile(BuildError):  # noqa: N818 - names the fault
    """The staged file of a finished video cannot be read back.

    Attributes:
        video: the video.
        why: the error of the reader.
    """

    def __init__(self, video: Video, path: AnyPath, why: str) -> None:
        super().__init__(
            f"the staged file of {video.video_id} cannot be read ({path}: {why}). The disk may be "
            "damaged. Remove the file, then run the same command again: only this video is curated again"
        )
        self.video = video
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[DamagedStagedFile], tuple[Video, AnyPath, str]]:
        return DamagedStagedFile, (self.video, self.path, self.why)


@dataclass(frozen=True)
class Staging:
    """The finished videos of one curation.

    Attributes:
        folder: their directory.
        kept: directories of other curations; a video that is not in `folder` is taken from the first that has it.
    """

    folder: AnyPath
    kept: tuple[AnyPath, ...] = ()

    @classmethod
    def of(cls, output: AnyPath, curation_digest: str) -> Staging:
        """The staging area of a build."""
        return cls(output / FOLDER / curation_digest[:16])

    def path(self, video: Video) -> AnyPath:
        """The file of a video, finished or not."""
        name = _name(video)
        own = self.folder / name
        if not self.kept or own.is_file():
            return own
        return next((folder / name for folder in self.kept if (folder / name).is_file()), own)

    def write(self, video: Video, finalized: FinalizedVideo) -> None:
        """Write a finished video.

        Raises:
            OutOfSpace: the disk is full; no file is written.
        """
        table = pa.table(
            {
                "outcome": [finalized.outcome.model_dump_json()],
                "seconds": [_SECONDS.dump_json(finalized.seconds).decode()],
                "identities": [[identity.model_dump_json() for identity in finalized.identities]],
                "summary": [staged_rows(finalized.samples).to_pylist()],
                "measures": [measured(finalized.samples).to_pylist()],
                "jpegs": [[sample.jpegs for sample in finalized.samples]],
                "masks": [[sample.masks for sample in finalized.samples]],
                "landmarks": [[sample.landmarks for sample in finalized.samples]],
                "timeline": [finalized.timeline.model_dump_json(exclude_defaults=True)],
            },
            schema=_SCHEMA,
        )
        write_parquet(self.folder / _name(video), table)

    def begin(self, build: str) -> None:
        """Leave a mark of a build, by which its workers know that they see the same directory.

        Raises:
            OutOfSpace: the disk is full.
            OSError: the directory cannot be written to.
        """
        write_bytes(self._mark(build), b"", durable=False)

    def has_begun(self, build: str) -> bool:
        """Whether this is the directory in which the driver has begun a build."""
        return self._mark(build).is_file()

    def _mark(self, build: str) -> AnyPath:
        return self.folder / STARTS / f"build-{build}"

    def count_start(self, video: Video, node: str = "") -> list[str]:
        """Record a start of a video's analysis, in a file that outlives the process and the node.

        Args:
            video: the video.
            node: Ray's id of the node; one line.

        Returns:
            The nodes of the starts, this one included, since `forget_starts` or `remove_temporary_files`, without
            those that were cancelled.

        Raises:
            OSError: the output cannot be written to.
        """
        nodes: list[str] = []
        for line in self._note_start(video, node):
            if not line.startswith(CANCELLED):
                nodes.append(line)
            elif line.removeprefix(CANCELLED) in nodes:
                nodes.remove(line.removeprefix(CANCELLED))
        return [line for line in nodes if line != MEMORY]

    def cancel_start(self, video: Video, node: str = "") -> None:
        """Record that a start ended in a fault of the machine: the video is not to blame.

        Raises:
            OSError: the output cannot be written to.
        """
        self._note_start(video, f"{CANCELLED}{node}")

    def note_memory(self, video: Video) -> None:
        """Record that the memory runs out while a video is analysed.

        Raises:
            OSError: the output cannot be written to.
        """
        self._note_start(video, MEMORY)

    def ran_out_of_memory(self, video: Video) -> bool:
        """Whether that was recorded since `forget_starts`."""
        path = self._starts(video)
        return path.is_file() and MEMORY in path.read_bytes().decode().splitlines()

    def _note_start(self, video: Video, line: str) -> list[str]:
        """Append a line to the starts of a video; all of them."""
        path = self._starts(video)
        if isinstance(path, ObjectPath):
            before = path.read_bytes() if path.is_file() else b""
            path.write_bytes(before + f"{line}\n".encode())
        else:
            with named_when_full(path.parent.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(f"{line}\n".encode())
        return path.read_bytes().decode().splitlines()

    def forget_starts(self, video: Video) -> None:
        """Reset the count: the analysis of the video has ended."""
        self._starts(video).unlink(missing_ok=True)

    def _starts(self, video: Video) -> AnyPath:
        return self.folder / STARTS / _name(video).replace("/", "").removesuffix(".parquet")

    def finished(self, videos: list[Video]) -> list[Video]:
        """Those of `videos` that are done."""
        there = set[str]().union(*map(_names, (self.folder, *self.kept)))
        return [video for video in videos if _name(video) in there]

    def sizes(self, videos: list[Video]) -> dict[str, int]:
        """Bytes of the files of the finished videos, by id."""
        by_name: dict[str, int] = {}
        for folder in (*reversed(self.kept), self.folder):
            if isinstance(folder, ObjectPath):
                by_name |= {entry.path: entry.size for entry in folder.entries()}
            else:
                by_name |= {
                    f"{path.parent.name}/{path.name}": path.stat().st_size
                    for path in folder.glob("??/*.parquet")
                }
        return {video.video_id: by_name[_name(video)] for video in videos if _name(video) in by_name}

    @property
    def readers(self) -> int:
        """How many files are worth reading at a time: from an object store, each waits for its answers."""
        return PARALLEL if isinstance(self.folder, ObjectPath) else len(os.sched_getaffinity(0))

    def threads(self, *, alone: bool) -> int:
        """How many threads of a process read files.

        Args:
            alone: whether the process has all CPUs; else one reads while another computes.
        """
        return self.readers if alone or isinstance(self.folder, ObjectPath) else 2

    def folders_of(self, videos: list[Video]) -> list[AnyPath]:
        """The directories that hold at least one of the finished `videos`, this one first."""
        missing = {_name(video) for video in videos}
        holding: list[AnyPath] = []
        for folder in (self.folder, *self.kept):
            found = missing & _names(folder)
            missing -= found
            holding += [folder] if found else []
        return holding

    def outcome(self, video: Video) -> VideoOutcome:
        """The outcome of a finished video.

        Raises:
            DamagedStagedFile: its file is damaged.
            BuildError: it cannot be read. The methods that follow raise the same.
        """
        (text,) = self._read(video, "outcome")
        with _damage_named(video, self.path(video)):
            return VideoOutcome.model_validate_json(text)

    def seconds(self, video: Video) -> dict[str, float]:
        """The time that a finished video took, by step."""
        (text,) = self._read(video, "seconds")
        with _damage_named(video, self.path(video)):
            return _SECONDS.validate_json(text)

    def identities(self, video: Video) -> list[StagedIdentity]:
        """The identities of a finished video, without their images."""
        (texts,) = self._read(video, "identities")
        with _damage_named(video, self.path(video)):
            return [StagedIdentity.model_validate_json(text) for text in texts]

    def summary(self, video: Video) -> tuple[VideoOutcome, pa.Table, pa.Table]:
        """The outcome of a finished video, and of its identities the rows (`STAGED`) and the `MEASURES`."""
        row = self._row(video, "outcome", "summary", "measures")
        with _damage_named(video, self.path(video)):
            outcome = VideoOutcome.model_validate_json(row["outcome"])
            rows = pa.Table.from_pylist(row["summary"], STAGED)
            if "measures" in row:
                return outcome, rows, pa.Table.from_pylist(row["measures"], MEASURES)
        # A file of an older version.
        return outcome, rows, measured(self.samples(video)[1])

    def samples(self, video: Video) -> tuple[VideoOutcome, list[StagedSample]]:
        """The outcome of a finished video, and its identities with their images."""
        text, *columns = self._read(video, "outcome", "identities", "jpegs", "masks", "landmarks")
        with _damage_named(video, self.path(video)):
            return VideoOutcome.model_validate_json(text), [
                StagedSample(StagedIdentity.model_validate_json(text), tuple(jpegs), tuple(masks), landmarks)
                for text, jpegs, masks, landmarks in zip(*columns, strict=True)
            ]

    def timeline(self, video: Video) -> Timeline:
        """What the analysis of a finished video saw, frame by frame."""
        (text,) = self._read(video, "timeline")
        with _damage_named(video, self.path(video)):
            return Timeline.model_validate_json(text)

    def is_readable(self, video: Video) -> bool:
        """Whether the whole file of a finished video can be read back."""
        try:
            row = self._row(video, *(name for name in _SCHEMA.names if name != "timeline"))
            if set(_SCHEMA.names) - LATER_COLUMNS - row.keys():
                return False
            self.outcome(video)
            self.identities(video)
        except DamagedStagedFile:
            return False
        return True

    def forget(self, videos: list[Video]) -> None:
        """Drop the outcomes of some videos, so that they are curated again."""
        for video in videos:
            for folder in (self.folder, *self.kept):
                (folder / _name(video)).unlink(missing_ok=True)

    def remove_temporary_files(self) -> None:
        """Remove the leftovers of killed writers, but no file that another driver's workers may be writing."""
        starts = self.folder / STARTS
        if isinstance(starts, ObjectPath):
            starts.bucket.delete([f"{starts.key}/{entry.path}" for entry in starts.entries()])
            return
        for folder in (self.folder.parent, *self.folder.glob("??")):
            remove_temporaries(folder, ABANDONED_AFTER_S)
        shutil.rmtree(starts, ignore_errors=True)

    def _read(self, video: Video, *columns: str) -> list[Any]:
        """The given columns of a part's only row."""
        row = self._row(video, *columns)
        with _damage_named(video, self.path(video)):
            return [row[column] for column in columns]

    def _row(self, video: Video, *columns: str) -> dict[str, Any]:
        """Those of the given columns that a part has, of its only row."""
        path = self.path(video)
        with _damage_named(video, path):
            return _columns(path, list(columns))


def _name(video: Video) -> str:
    """Path of a video's file inside a staging directory."""
    text = f"{video.video_id}\0{video.bytes}\0{video.modified_ns}"
    part = (
        *(video.span_s, video.span_frames, video.annotated_box, video.annotated_box_px),
        *((video.frame_rate,) if video.frame_rate else ()),
    )
    if any(part):
        text += f"\0{part}"
    name = hashlib.sha256(text.encode()).hexdigest()
    return f"{name[:2]}/{name[2:34]}.parquet"


def _names(folder: AnyPath) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("??/*.parquet")}


@contextmanager
def _damage_named(video: Video, path: AnyPath) -> Iterator[None]:
    try:
        yield
    # ValueError: readable, but no record of this schema. OSError: how Arrow reports a wrong checksum.
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The error is the system's, not the file's content: an outage of the storage loses no work.
            raise BuildError(
                f"cannot read {path}: {error.strerror}. Run the same command again. If the error persists, remove "
                f"the file: {video.video_id} is then curated again"
            ) from error
        raise DamagedStagedFile(video, path, str(error).splitlines()[0]) from error


@dataclass(frozen=True)
class StagedVideo:
    """The content of a staged file, found by the file's path alone.

    Attributes:
        outcome: of the video.
        timeline: what the analysis saw; None in files of an older version.
        identities: those that were chosen.
        jpegs: the images of each identity.
    """

    outcome: VideoOutcome
    timeline: Timeline | None
    identities: list[StagedIdentity]
    jpegs: list[list[bytes]]


def read_staged_outcome(path: AnyPath) -> VideoOutcome:
    """The outcome in a staged file.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    return VideoOutcome.model_validate_json(_columns(path, ["outcome"])["outcome"])


def read_staged_video(path: AnyPath) -> StagedVideo:
    """The content of a staged file.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    row = _columns(path, ["outcome", "identities", "jpegs", "timeline"])
    return StagedVideo(
        outcome=VideoOutcome.model_validate_json(row["outcome"]),
        timeline=Timeline.model_validate_json(row["timeline"]) if "timeline" in row else None,
        identities=[StagedIdentity.model_validate_json(text) for text in row["identities"]],
        jpegs=row["jpegs"],
    )


def _columns(path: AnyPath, names: list[str]) -> dict[str, Any]:
    """Those of the given columns that a file has, of its only row.

    Not by `read_table`: it starts threads that can abort a short-lived process when the interpreter ends.
    """
    with path.open("rb", SMALL_READ if set(names).isdisjoint(LARGE_COLUMNS) else LARGE_READ) as file:
        table = pq.ParquetFile(file, page_checksum_verification=True).read(columns=names, use_threads=False)
    row: dict[str, Any]
    (row,) = table.to_pylist()
    return row
