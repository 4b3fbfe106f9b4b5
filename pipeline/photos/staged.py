"""Finished people, kept until the dataset is written; an interrupted run resumes from them.

    <output>/.staging/photographs/<curation digest>/<2 hex>/<32 hex>.parquet

One file contains what the photographs of one person became, and appears whole or not at all. Its name comes from
the person's name and the list of the photographs with their sizes and times of change: a person of whom a
photograph was replaced, added or removed is curated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BuildError
from pipeline.layout import STAGING
from pipeline.photos.curate import CuratedPerson
from pipeline.photos.listing import Person
from pipeline.photos.outcomes import PhotographOutcome
from shards.atomic import write_parquet
from shards.sample import Sample
from shards.schema import IdentityRecord, VideoOutcome
from storage.errors import is_of_storage
from storage.path import AnyPath

FOLDER = "photographs"
"""Below the staging area, so that nothing here is taken for the staged file of a video."""
_IMAGES = pa.list_(pa.list_(pa.binary()))
_SCHEMA = pa.schema(
    [
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("photographs", pa.list_(pa.string()), nullable=False),
        pa.field("keys", pa.list_(pa.string()), nullable=False),
        pa.field("records", pa.list_(pa.string()), nullable=False),
        pa.field("jpegs", _IMAGES, nullable=False),
        pa.field("masks", _IMAGES, nullable=False),
        pa.field("landmarks", pa.list_(pa.binary()), nullable=False),
    ]
)


@dataclass(frozen=True)
class StagedPeople:
    """The finished people of one curation.

    Attributes:
        folder: their directory.
    """

    folder: AnyPath

    @classmethod
    def of(cls, output: AnyPath, curation_digest: str) -> StagedPeople:
        """The staging area of an output."""
        return cls(output / STAGING / FOLDER / curation_digest[:16])

    def path(self, person: Person, *, mirrored: bool = False) -> AnyPath:
        """The file of a person, finished or not."""
        return self.folder / _name(person, mirrored=mirrored)

    def finished(self) -> set[str]:
        """Names of all files, as `is_finished` takes them."""
        return {f"{path.parent.name}/{path.name}" for path in self.folder.glob("??/*.parquet")}

    def write(self, person: Person, curated: CuratedPerson, *, mirrored: bool = False) -> None:
        """Write a finished person.

        Raises:
            OutOfSpace: the disk is full; no file is written.
        """
        samples = curated.samples
        table = pa.table(
            {
                "outcome": [curated.outcome.model_dump_json()],
                "photographs": [[each.model_dump_json() for each in curated.photographs]],
                "keys": [[sample.record.key for sample in samples]],
                "records": [[sample.record.model_dump_json() for sample in samples]],
                "jpegs": [[sample.images for sample in samples]],
                "masks": [[sample.masks for sample in samples]],
                "landmarks": [[sample.landmarks for sample in samples]],
            },
            schema=_SCHEMA,
        )
        write_parquet(self.path(person, mirrored=mirrored), table)

    def outcome(self, person: Person, *, mirrored: bool = False) -> tuple[VideoOutcome, list[str]]:
        """The row of a finished person, and the keys of the identities.

        Raises:
            BuildError: the file cannot be read back.
        """
        row = self._row(person, mirrored, "outcome", "keys")
        return VideoOutcome.model_validate_json(row["outcome"]), row["keys"]

    def photographs(self, person: Person) -> list[PhotographOutcome]:
        """The outcome of each photograph of a finished person.

        Raises:
            BuildError: the file cannot be read back.
        """
        row = self._row(person, False, "photographs")
        return [PhotographOutcome.model_validate_json(text) for text in row["photographs"]]

    def samples(self, person: Person, *, mirrored: bool = False) -> list[Sample]:
        """The identities of a finished person with their images.

        Raises:
            BuildError: the file cannot be read back.
        """
        columns = ("records", "jpegs", "masks", "landmarks")
        row = self._row(person, mirrored, *columns)
        return [
            Sample(IdentityRecord.model_validate_json(text), tuple(jpegs), tuple(masks), landmarks)
            for text, jpegs, masks, landmarks in zip(*(row[name] for name in columns), strict=True)
        ]

    def _row(self, person: Person, mirrored: bool, *columns: str) -> dict[str, Any]:
        path = self.path(person, mirrored=mirrored)
        try:
            with path.open("rb") as file:
                table = pq.ParquetFile(file, page_checksum_verification=True).read(
                    columns=list(columns), use_threads=False
                )
            row: dict[str, Any]
            (row,) = table.to_pylist()
        # OSError without a number is how Arrow reports a wrong checksum.
        except (pa.ArrowException, ValueError, KeyError, OSError) as error:
            if isinstance(error, OSError) and (error.errno is not None or is_of_storage(error)):
                raise
            raise BuildError(
                f"the staged file of {person.name} cannot be read ({path}: {str(error).splitlines()[0]}). The "
                "disk may be damaged. Remove the file, then run the same command again: only this person is "
                "curated again"
            ) from error
        return row


def is_finished(person: Person, finished: set[str], *, mirrored: bool = False) -> bool:
    """Whether a person is among the finished ones of `StagedPeople.finished`."""
    return _name(person, mirrored=mirrored) in finished


def _name(person: Person, *, mirrored: bool) -> str:
    """Path of a person's file inside a staging directory."""
    digest = person.digest
    return f"{digest[:2]}/{digest[2:34]}{'-mirrored' if mirrored else ''}.parquet"
