"""Names: of the files of a dataset, of the members of a sample, and the order of both."""

from __future__ import annotations

import re
from typing import Final

from shards.schema import IMAGES_PER_IDENTITY, Split

DATASET_JSON = "dataset.json"

INDEX: Final = "index"
IMAGES: Final = "images"
VIDEOS: Final = "videos"
TOMBSTONES: Final = "tombstones"
TABLES = (IMAGES, INDEX, VIDEOS)
"""Roles of the tables that every dataset has; `TOMBSTONES` exists once a sample was erased."""

JSON_FIELD = "json"
IMAGE_FIELDS = tuple(f"{number}.jpg" for number in range(IMAGES_PER_IDENTITY))
MASK_FIELDS = tuple(f"{number}.mask.png" for number in range(IMAGES_PER_IDENTITY))
LANDMARKS_FIELD = "landmarks.npy"
FIELDS = (*IMAGE_FIELDS, *MASK_FIELDS, LANDMARKS_FIELD, JSON_FIELD)
"""What follows `<key>.` in the names of a sample's members, in their order in the tar."""

SHARD_PATTERN = r"^(?:train/mfhq-train|test/mfhq-test)-[0-9]{6}-g[0-9]{4}\.tar$"
"""The only names that a shard may have, relative to the root. Nothing that matches leads out of the root."""
TABLE_PATTERN = r"^[a-z]{1,20}-g[0-9]{4}\.parquet$"
"""The only names that a table may have, likewise."""
MAX_SHARDS = 1_000_000
MAX_GENERATIONS = 10_000

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_SHARD = re.compile(SHARD_PATTERN.removesuffix("$") + r"\Z")
_TABLE = re.compile(TABLE_PATTERN.removesuffix("$") + r"\Z")
_GENERATION = re.compile(r"-g([0-9]{4})\.[a-z]+\Z")


def shard_name(split: Split, number: int, generation: int = 0) -> str:
    """Path of a shard relative to the root, with `/` on every system.

    Raises:
        ValueError: the number or the generation has too many digits.
    """
    if not 0 <= number < MAX_SHARDS:
        raise ValueError(
            f"shard number {number}: a split has at most {MAX_SHARDS:,} shards; raise the limits"
        )
    return f"{split.value}/mfhq-{split.value}-{number:06d}-g{_digits(generation)}.tar"


def table_name(role: str, generation: int = 0) -> str:
    """Name of a table, relative to the root.

    Raises:
        ValueError: the generation has too many digits.
    """
    return f"{role}-g{_digits(generation)}.parquet"


def is_shard_name(name: str) -> bool:
    """Whether `name` is one that `shard_name` can give."""
    return _SHARD.match(name) is not None


def is_table_name(name: str) -> bool:
    """Whether `name` is one that `table_name` can give for a role that may exist."""
    return _TABLE.match(name) is not None


def generation_of(name: str) -> int:
    """The generation in which a shard or a table was written, from its name.

    Raises:
        ValueError: it is the name of neither.
    """
    match = _GENERATION.search(name)
    if match is None:
        raise ValueError(f"{name!r} names no generation")
    return int(match[1])


def split_of(name: str) -> Split:
    """The split of a shard, from its name."""
    return Split(name.split("/", 1)[0])


def number_of(name: str) -> int:
    """The number of a shard within its split, from its name."""
    return int(name.rsplit("-", 2)[1])


def split_member(name: str) -> tuple[str, str]:
    """Cut a member's name into key and field at the first dot, as WebDataset does."""
    key, _, field = name.partition(".")
    return key, field


def is_member_name(name: str) -> bool:
    """Whether `name` is one that a member of a shard may have."""
    key, field = split_member(name)
    return field in FIELDS and _KEY.fullmatch(key) is not None


def _digits(generation: int) -> str:
    if not 0 <= generation < MAX_GENERATIONS:
        raise ValueError(
            f"generation {generation}: there are at most {MAX_GENERATIONS:,}; rebuild the dataset"
        )
    return f"{generation:04d}"
