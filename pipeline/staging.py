"""Finished videos, kept until the data set is packed; the one place a build is resumed from.

    <output>/.staging/<curation digest>/<2 hex>/<32 hex>.parquet

One file holds one video's outcome and images, and appears whole or not at all, so that its existence says that
the video is done. Its name comes from the video's id, size and time of change: a file that was replaced is
curated again, and what two workers write twice is the same file.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from pipeline.records import StagedIdentity
from pipeline.sources.manifest import Video
from pipeline.stages.decide import DecidedVideo
from shards.atomic import remove_temporaries, write_parquet
from shards.schema import VideoOutcome

FOLDER = ".staging"

_IMAGES = pa.list_(pa.list_(pa.binary()))
_SCHEMA = pa.schema(
    [
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("seconds", pa.string(), nullable=False),
        pa.field("identities", pa.list_(pa.string()), nullable=False),
        pa.field("jpegs", _IMAGES, nullable=False),
        pa.field("masks", _IMAGES, nullable=False),
    ]
)
_SECONDS = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Staging:
    """The finished videos of one configuration of the curation.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    @classmethod
    def of(cls, output: Path, curation_digest: str) -> Staging:
        """The staging area of a build."""
        return cls(output / FOLDER / curation_digest[:16])

    def path(self, video: Video) -> Path:
        """Where a video's outcome lies once it is finished."""
        text = f"{video.video_id}\0{video.bytes}\0{video.modified_ns}"
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:34]}.parquet"

    def write(self, video: Video, decided: DecidedVideo) -> None:
        """Keep a finished video.

        Raises:
            OutOfSpace: the disk is full; nothing was kept.
        """
        table = pa.table(
            {
                "outcome": [decided.outcome.model_dump_json()],
                "seconds": [_SECONDS.dump_json(decided.seconds).decode()],
                "identities": [[identity.model_dump_json() for identity in decided.identities]],
                "jpegs": [decided.jpegs],
                "masks": [decided.masks],
            },
            schema=_SCHEMA,
        )
        write_parquet(self.path(video), table)

    def finished(self, videos: list[Video]) -> list[Video]:
        """Those of `videos` that are done."""
        there = {path.relative_to(self.folder).as_posix() for path in self.folder.glob("??/*.parquet")}
        return [v for v in videos if self.path(v).relative_to(self.folder).as_posix() in there]

    def outcome(self, video: Video) -> VideoOutcome:
        """What became of a finished video."""
        (text,) = self._column(video, "outcome")
        return VideoOutcome.model_validate_json(text)

    def seconds(self, video: Video) -> dict[str, float]:
        """Where a finished video's time went, by step."""
        (text,) = self._column(video, "seconds")
        return _SECONDS.validate_json(text)

    def identities(self, video: Video) -> list[StagedIdentity]:
        """The identities of a finished video, without their images."""
        (texts,) = self._column(video, "identities")
        return [StagedIdentity.model_validate_json(text) for text in texts]

    def images(self, video: Video) -> Iterator[tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        """JPEGs and masks of each identity, in the order of `identities`."""
        table = pq.read_table(self.path(video), columns=["jpegs", "masks"], partitioning=None)
        jpegs, masks = table["jpegs"][0].as_py(), table["masks"][0].as_py()
        for images, covers in zip(jpegs, masks, strict=True):
            yield tuple(images), tuple(covers)

    def forget(self, videos: list[Video]) -> None:
        """Drop the outcomes of some videos, so that they are curated again."""
        for video in videos:
            self.path(video).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed writers left behind; only while no writer runs."""
        for folder in sorted(self.folder.glob("??")):
            remove_temporaries(folder)

    def remove_others(self) -> None:
        """Remove the staging areas of other configurations."""
        for folder in self.folder.parent.glob("*"):
            if folder.is_dir() and folder != self.folder:
                shutil.rmtree(folder)

    def _column(self, video: Video, name: str) -> list:  # type: ignore[type-arg]
        table = pq.read_table(self.path(video), columns=[name], partitioning=None)
        values: list = table[name].to_pylist()  # type: ignore[type-arg]
        return values
