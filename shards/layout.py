"""Names: of the files of a dataset, of the members of a sample, and the order of both."""

from __future__ import annotations

import re

from shards.schema import IMAGES_PER_IDENTITY, Split

DATASET_JSON = "dataset.json"
INDEX = "index.parquet"
IMAGES = "images.parquet"
VIDEOS = "videos.parquet"
TABLES = (IMAGES, INDEX, VIDEOS)

JSON_FIELD = "json"
IMAGE_FIELDS = tuple(f"{number}.jpg" for number in range(IMAGES_PER_IDENTITY))
MASK_FIELDS = tuple(f"{number}.mask.png" for number in range(IMAGES_PER_IDENTITY))
FIELDS = (*IMAGE_FIELDS, *MASK_FIELDS, JSON_FIELD)
"""What stands after `<key>.` in the names of a sample's members, in their order in the tar."""

SHARD_PATTERN = r"^(?:train/mfhq-train|test/mfhq-test)-[0-9]{6}\.tar$"
"""The only names that a shard may have, relative to the root. Nothing that matches leads out of the root."""
MAX_SHARDS = 1_000_000

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_SHARD = re.compile(SHARD_PATTERN.removesuffix("$") + r"\Z")


def shard_name(split: Split, number: int) -> str:
    """Path of a shard relative to the root, with `/` on every system.

    Raises:
        ValueError: the number has no six digits.
    """
    if not 0 <= number < MAX_SHARDS:
        raise ValueError(
            f"shard number {number}: a split has at most {MAX_SHARDS:,} shards; raise the limits"
        )
    return f"{split.value}/mfhq-{split.value}-{number:06d}.tar"


def is_shard_name(name: str) -> bool:
    """Whether `name` is one that `shard_name` can give."""
    return _SHARD.match(name) is not None


def split_of(name: str) -> Split:
    """The split of a shard, from its name."""
    return Split(name.split("/", 1)[0])


def split_member(name: str) -> tuple[str, str]:
    """Cut a member's name into key and field at the first dot, as WebDataset does."""
    key, _, field = name.partition(".")
    return key, field


def is_member_name(name: str) -> bool:
    """Whether `name` is one that a member of a shard may have."""
    key, field = split_member(name)
    return field in FIELDS and _KEY.fullmatch(key) is not None
