"""dataset.json: what a data set holds, how it was made, and the mark that it is whole."""

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


class DataSetError(ValueError):
    """A folder is no data set, or one that this code cannot or must not read."""


class UnsupportedVersion(DataSetError):  # noqa: N818 - says what is the matter
    """The data set is of another major version of the format."""


class ShardLimits(Record):
    """Where shards are cut: before the sample that would pass either limit."""

    max_samples: int = Field(default=1000, ge=1)
    max_bytes: int = Field(
        default=2**29, ge=1, description="of the tar; a larger sample has a shard of its own"
    )


class Provenance(Record):
    """What made the data set. No times and no host names: the same inputs give the same bytes."""

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


class DatasetManifest(Record):
    """The content of dataset.json, less its own digest."""

    format_version: str = FORMAT_VERSION
    name: str
    limits: ShardLimits
    counts: Counts
    shards: list[ShardEntry] = Field(description="sorted by name")
    tables: dict[str, TableEntry] = Field(description="one for each of the three Parquet files")
    provenance: Provenance


def encode_manifest(manifest: DatasetManifest) -> bytes:
    """The bytes of dataset.json.

    Raises:
        ValueError: the configuration holds NaN or an infinity.
    """
    value = manifest.model_dump(mode="json")
    return indented_json({**value, DIGEST_FIELD: _digest(value)})


def decode_manifest(data: bytes) -> DatasetManifest:
    """Read dataset.json; fields that a newer minor version added are ignored.

    Raises:
        DataSetError: not JSON, altered, of a newer major version, or not what the format says.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataSetError(f"dataset.json is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataSetError("dataset.json does not hold a JSON object")
    newer_minor = check_version(value.get("format_version"))
    digest = value.pop(DIGEST_FIELD, None)
    try:
        altered = digest != _digest(value) or data != indented_json({**value, DIGEST_FIELD: digest})
    except (ValueError, RecursionError) as error:
        raise DataSetError(f"dataset.json holds a value that JSON cannot say: {error}") from error
    if altered:
        raise DataSetError(f"dataset.json was altered: its bytes do not match its own {DIGEST_FIELD}")
    try:
        manifest = DatasetManifest.model_validate(value, extra="ignore" if newer_minor else "forbid")
    except ValidationError as error:
        raise DataSetError(f"dataset.json does not follow the format: {brief(error)}") from error
    if missing := set(TABLES) - manifest.tables.keys():
        raise DataSetError(f"dataset.json lists no {', '.join(sorted(missing))}")
    return manifest


def check_version(version: Any) -> bool:
    """Whether `version` is of a newer minor version, whose unknown fields are to be ignored.

    Raises:
        DataSetError: not a version.
        UnsupportedVersion: of another major version.
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise DataSetError(f"format_version is {version!r}, expected a version such as {FORMAT_VERSION!r}")
    major, minor = int(match[1]), int(match[2])
    own_major, own_minor = map(int, FORMAT_VERSION.split("."))
    if major != own_major:
        remedy = "update this software" if major > own_major else "rebuild it or read it with older software"
        raise UnsupportedVersion(
            f"the data set has format version {version}; this software reads {own_major}.x: {remedy}"
        )
    return minor > own_minor


def brief(error: ValidationError) -> str:
    """The first of a record's faults, on one line and in ASCII."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}, not {ascii(first['input'])[:100]}"


def _digest(value: dict[str, Any]) -> str:
    return sha256_hex(compact_json(value))
