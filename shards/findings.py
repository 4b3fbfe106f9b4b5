"""The checks of `verify`, and the findings that it reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """What `verify` checks; a finding names the check that failed."""

    BAD_METADATA = "bad_metadata"
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
    BAD_LANDMARKS = "bad_landmarks"
    DUPLICATE_KEY = "duplicate_key"
    SAMPLE_ORDER = "sample_order"
    WRONG_SPLIT = "wrong_split"
    SPLIT_LEAKAGE = "split_leakage"
    WRONG_COUNT = "wrong_count"
    INDEX_DISAGREES = "index_disagrees"
    IMAGES_DISAGREE = "images_disagree"
    VIDEOS_DISAGREE = "videos_disagree"
    ERASED_SAMPLE = "erased_sample"


@dataclass(frozen=True)
class Finding:
    """One check that failed in one place.

    Attributes:
        check: which check failed.
        where: the file, relative to the root, and behind a colon the member, key, video or person.
        message: a sentence for people.
    """

    check: Check
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.message}"


class Findings:
    """Collects findings."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, check: Check, where: str, message: str) -> None:
        """Add a finding; characters that are not printable ASCII are escaped, because names come from outside."""
        self.found.append(Finding(check, _printable(where), _printable(message)))


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
