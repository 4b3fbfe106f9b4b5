"""What linking found beside the dataset itself: the pairs that are worth a look, and what the user should know.

Kept as `<output>/report/people.json`, so that `mfhq report` can show it again: a dataset need not hold embeddings.
"""

from __future__ import annotations

from pydantic import Field, ValidationError

from shards.atomic import write_bytes
from shards.metadata import DatasetError, brief
from shards.schema import Record
from storage.path import AnyPath

FILE = "people.json"
SHOWN_PAIRS = 12
"""Pairs that are kept of each kind."""


class Pair(Record):
    """Two identities, and how alike they are."""

    first: str
    second: str
    cosine: float
    least_cosine: float = Field(description="threshold of this pair: lower for two of one origin")


class PeopleFindings(Record):
    """What linking found. Of two persons, and of one person, one pair is listed at most."""

    embedder: str
    link_cosine: float = Field(description="threshold of linking")
    same_origin_cosine: float = Field(description="threshold for two identities of one origin")
    linked: list[Pair] = Field(description="of one person and above the threshold, the least alike first")
    apart: list[Pair] = Field(description="of two persons and below the threshold, the most alike first")
    rejected: list[Pair] = Field(
        description="of two persons although above it: their groups as wholes differ, or they were seen at once"
    )
    notes: list[str] = Field(description="sentences for the user, such as groups that do not fit the split")


def write_findings(path: AnyPath, findings: PeopleFindings) -> None:
    """Store the findings of a build.

    Raises:
        OutOfSpace: the disk is full.
    """
    write_bytes(path, findings.model_dump_json(indent=1).encode())


def read_findings(path: AnyPath) -> PeopleFindings | None:
    """The stored findings; None when there are none.

    Raises:
        DatasetError: they cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return PeopleFindings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error}. Without the file, its part is left out"
        ) from error
    except ValidationError as error:
        raise DatasetError(
            f"{path} is damaged: {brief(error)}. Without the file, its part is left out"
        ) from error
