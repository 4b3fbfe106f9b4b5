"""dataset.json: the content of a dataset, how it was made, and the mark that it is whole.

It is the only file with a fixed name, and the only one that names others. Replacing it, by one atomic rename,
moves a dataset from one generation to the next.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from shards.canonical import compact_json, indented_json, sha256_hex
from shards.layout import (
    MAX_GENERATIONS,
    SHARD_PATTERN,
    TABLE_PATTERN,
    TABLES,
    generation_of,
    number_of,
    split_of,
    table_name,
)
from shards.schema import FORMAT_VERSION, Record, Sha256, Split, Status

DIGEST_FIELD = "metadata_sha256"
_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")

Count = Annotated[int, Field(ge=0)]
SemanticVersion = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
        r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$",
        max_length=100,
        description="a semantic version such as 1.0.0",
    ),
]


class DatasetError(ValueError):
    """A directory is no dataset, or one that this code cannot or must not read."""


class UnsupportedVersion(DatasetError):  # noqa: N818 - states the error
    """The dataset is of another major version of the format."""


class ShardLimits(Record):
    """Limits of a shard: a new one starts before the sample that would pass either limit."""

    max_samples: int = Field(default=1000, ge=1)
    max_bytes: int = Field(
        default=2**29, ge=1, description="of the tar; a larger sample has a shard of its own"
    )


class Provenance(Record):
    """How the dataset was made. No times and no host names: the same inputs give the same bytes."""

    config: dict[str, JsonValue] = Field(description="the resolved configuration")
    config_digest: str
    models: dict[str, Sha256] = Field(description="name of each network -> sha256 of its file")
    code_version: str
    libraries: dict[str, str] = Field(default_factory=dict, description="name -> version")


class ShardEntry(Record):
    """One tar."""

    name: str = Field(pattern=SHARD_PATTERN, description="path relative to the root")
    split: Split
    sha256: Sha256
    bytes: Count
    samples: Count


class TableEntry(Record):
    """One Parquet file."""

    name: str = Field(pattern=TABLE_PATTERN, description="path relative to the root")
    sha256: Sha256
    bytes: Count
    rows: Count


class Counts(Record):
    """Numbers of videos, identities, images and persons."""

    videos: dict[Status, Count]
    identities: dict[Split, Count]
    images: Count
    persons: Count


class DatasetMetadata(Record):
    """The content of dataset.json, without its own digest."""

    format_version: str = FORMAT_VERSION
    name: str
    version: SemanticVersion = Field(default="1.0.0", description="of the dataset, for people to cite")
    generation: int = Field(
        default=0, ge=0, lt=MAX_GENERATIONS, description="0 is a build; each change of one adds 1"
    )
    limits: ShardLimits
    counts: Counts
    shards: list[ShardEntry] = Field(description="sorted by name")
    tables: dict[str, TableEntry] = Field(description="the Parquet files, by role")
    provenance: Provenance

    def table(self, role: str) -> str:
        """Name of the file of a table.

        Raises:
            KeyError: the dataset has no such table.
        """
        return self.tables[role].name

    def files(self) -> set[str]:
        """Names of all shards and tables."""
        return {shard.name for shard in self.shards} | {table.name for table in self.tables.values()}


def encode_metadata(metadata: DatasetMetadata) -> bytes:
    """The bytes of dataset.json.

    Raises:
        ValueError: the configuration holds NaN or an infinity.
    """
    value = metadata.model_dump(mode="json")
    return indented_json({**value, DIGEST_FIELD: _digest(value)})


def decode_metadata(data: bytes) -> DatasetMetadata:
    """Read dataset.json; fields that a newer minor version added are ignored.

    Raises:
        DatasetError: not JSON, altered, of a newer major version, or not in the format.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"dataset.json is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DatasetError("dataset.json does not hold a JSON object")
    newer_minor = check_version(value.get("format_version"))
    digest = value.pop(DIGEST_FIELD, None)
    try:
        altered = digest != _digest(value) or data != indented_json({**value, DIGEST_FIELD: digest})
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"dataset.json contains a value that is not valid JSON: {error}") from error
    if altered:
        raise DatasetError(f"dataset.json was altered: its bytes do not match its own {DIGEST_FIELD}")
    try:
        metadata = DatasetMetadata.model_validate(value, extra="ignore" if newer_minor else "forbid")
    except ValidationError as error:
        raise DatasetError(f"dataset.json does not follow the format: {brief(error)}") from error
    if missing := set(TABLES) - metadata.tables.keys():
        raise DatasetError(f"dataset.json lists no table {', '.join(sorted(missing))}")
    if errors := name_errors(metadata):
        raise DatasetError(f"dataset.json does not follow the format: {errors[0]}")
    return metadata


def name_errors(metadata: DatasetMetadata) -> list[str]:
    """Sentences on file names that contradict their entries or each other; empty when there are none."""
    errors = []
    for role, table in sorted(metadata.tables.items()):
        if table.name != table_name(role, generation_of(table.name)):
            errors.append(f"the table {role} is named {table.name}")
    errors += [
        f"{shard.name} is listed as {shard.split}"
        for shard in metadata.shards
        if shard.split is not split_of(shard.name)
    ]
    errors += [
        f"{name} is of a later generation than the dataset, {metadata.generation}"
        for name in sorted(metadata.files())
        if generation_of(name) > metadata.generation
    ]
    places = [(split_of(shard.name), number_of(shard.name)) for shard in metadata.shards]
    if places != sorted(set(places)):
        errors.append("its shards are not sorted by name, each number once a split")
    return errors


def check_version(version: Any) -> bool:
    """Whether `version` is of a newer minor version, whose unknown fields readers ignore.

    Raises:
        DatasetError: not a version.
        UnsupportedVersion: of another major version.
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise DatasetError(f"format_version is {version!r}, expected a version such as {FORMAT_VERSION!r}")
    major, minor = int(match[1]), int(match[2])
    own_major, own_minor = map(int, FORMAT_VERSION.split("."))
    if major != own_major:
        remedy = "update this software" if major > own_major else "rebuild it or read it with older software"
        raise UnsupportedVersion(
            f"the dataset has format version {version}; this software reads {own_major}.x: {remedy}"
        )
    return minor > own_minor


def brief(error: ValidationError) -> str:
    """The first of a record's errors, on one line and in ASCII."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}, not {ascii(first['input'])[:100]}"


def _digest(value: dict[str, Any]) -> str:
    return sha256_hex(compact_json(value))
