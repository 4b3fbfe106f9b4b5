"""The digest of a directory of frames; that of a file is its plain sha256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings, in lower case, of the files that count as frames."""


def directory_sha256(directory: Path) -> str:
    """Sha256 of a video that comes as a directory of frames; README.md, "The digest of a directory", defines it.

    Raises:
        ValueError: there is no image file, or the name of one contains a line feed.
        OSError: the directory or an image file cannot be read.
    """
    names = sorted(os.fsencode(entry.name) for entry in os.scandir(directory) if is_frame(entry))
    if not names:
        raise ValueError(
            f"{directory} has no image files. Pass a directory that contains the frames of a video"
        )
    digests = []
    for name in names:
        if b"\n" in name:
            raise ValueError(f"{directory} has a file whose name contains a line feed: {name!r}. Rename it")
        with (directory / os.fsdecode(name)).open("rb") as file:
            digests.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
    return digest_of(digests)


def digest_of(files: Iterable[tuple[bytes, str]]) -> str:
    """The digest of a directory, from those of its image files.

    Args:
        files: name and sha256 of each, sorted by name; no name contains a line feed.
    """
    total = hashlib.sha256()
    for name, sha256 in files:
        total.update(sha256.encode() + b"  " + name + b"\n")
    return total.hexdigest()


def is_frame(entry: os.DirEntry[str]) -> bool:
    """Whether a directory's entry is one of its frames."""
    return is_frame_name(entry.name) and entry.is_file()


def is_frame_name(name: str) -> bool:
    """Whether a file of this name in a directory of frames is one of them."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
