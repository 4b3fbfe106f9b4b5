"""dataset.json: what a dataset holds, how it was made, and the mark that it is whole."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from shards.canonical import compact_json, indented_json, sha256_hex
from shards.layout import SHARD_PATTERN, TABLES
from shards.schema import FORMAT_VERSION, Record, Sha256, Split, Status

DIGEST_FIELD = "manifest_sha256"
_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")

Count = Annotated[int, Field(ge=0)]


class DatasetError(ValueError):
    """A folder is no dataset, or one that this code cannot or must not read."""


class UnsupportedVersion(DatasetError):  # noqa: N818 - says what is the matter
    """The dataset is of another major version of the format."""


class ShardLimits(Record):
    """Where shards are cut: before the sample that would pass either limit."""

    max_samples: int = Field(default=1000, ge=1)
    max_bytes: int = Field(
        default=2**29, ge=1, description="of the tar; a larger sample has a shard of its own"
    )


class Provenance(Record):
    """What made the dataset. No times and no host names: the same inputs give the same bytes."""

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

    sha256: Sha256
    bytes: Count
    rows: Count


class Counts(Record):
    """How much there is."""

    videos: dict[Status, Count]
    identities: dict[Split, Count]
    images: Count
    persons: Count


class DatasetMetadata(Record):
    """The content of dataset.json, less its own digest."""

    format_version: str = FORMAT_VERSION
    name: str
    limits: ShardLimits
    counts: Counts
    shards: list[ShardEntry] = Field(description="sorted by name")
    tables: dict[str, TableEntry] = Field(description="one for each of the three Parquet files")
    provenance: Provenance


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
        DatasetError: not JSON, altered, of a newer major version, or not what the format says.
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
        raise DatasetError(f"dataset.json holds a value that JSON cannot say: {error}") from error
    if altered:
        raise DatasetError(f"dataset.json was altered: its bytes do not match its own {DIGEST_FIELD}")
    try:
        metadata = DatasetMetadata.model_validate(value, extra="ignore" if newer_minor else "forbid")
    except ValidationError as error:
        raise DatasetError(f"dataset.json does not follow the format: {brief(error)}") from error
    if missing := set(TABLES) - metadata.tables.keys():
        raise DatasetError(f"dataset.json lists no {', '.join(sorted(missing))}")
    return metadata


def check_version(version: Any) -> bool:
    """Whether `version` is of a newer minor version, whose unknown fields are to be ignored.

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
    """The first of a record's faults, on one line and in ASCII."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}, not {ascii(first['input'])[:100]}"


def _digest(value: dict[str, Any]) -> str:
    return sha256_hex(compact_json(value))
