"""What a data set can suffer from, and how that is reported."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of problem that `verify` finds."""

    BAD_MANIFEST = "bad_manifest"
    UNSUPPORTED_VERSION = "unsupported_version"
    MISSING_FILE = "missing_file"
    EXTRA_FILE = "extra_file"
    UNREADABLE_FILE = "unreadable_file"
    FILE_DIGEST = "file_digest"
    BAD_TABLE = "bad_table"
    TAR_HEADER = "tar_header"
    TAR_PADDING = "tar_padding"
    TAR_END = "tar_end"
    MISSING_MEMBER = "missing_member"
    EXTRA_MEMBER = "extra_member"
    MEMBER_ORDER = "member_order"
    MEMBER_DIGEST = "member_digest"
    BAD_RECORD = "bad_record"
    BAD_IMAGE = "bad_image"
    BAD_MASK = "bad_mask"
    DUPLICATE_KEY = "duplicate_key"
    SAMPLE_ORDER = "sample_order"
    WRONG_SPLIT = "wrong_split"
    SPLIT_LEAKAGE = "split_leakage"
    WRONG_COUNT = "wrong_count"
    INDEX_DISAGREES = "index_disagrees"
    IMAGES_DISAGREE = "images_disagree"
    VIDEOS_DISAGREE = "videos_disagree"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what it is.
        where: the file, relative to the root, and behind a colon the member, key, video or person.
        message: a sentence for people.
    """

    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.message}"


class Findings:
    """Collects problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, kind: Kind, where: str, message: str) -> None:
        """Note a problem; what is not printable ASCII is escaped, for names come from outside."""
        self.problems.append(Problem(kind, _printable(where), _printable(message)))


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
