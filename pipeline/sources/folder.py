"""Any directory of video files, searched with its subdirectories.

Every file that looks like a video is listed, also one that cannot be read: it becomes a failed row, not a gap.
All other files are counted, so that the counts add up to the content of the directory.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.config import Source
from pipeline.sources.manifest import Ignored, Manifest, SourceError, Video, printable

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
"""Files that must be accounted for. Others (annotations, thumbnails) are ignored and counted."""
NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
"""Errors for a directory that belongs to another user and is skipped. Any other error may hide videos that the
next run would find, so it ends the build."""


def list_folder(source: Source) -> Manifest:
    """List the videos below `source.path`, sorted by id.

    Raises:
        SourceError: the directory is missing, cannot be listed, or holds no video file.
    """
    root = source.path.absolute()
    if not root.is_dir():
        raise SourceError(
            f"source.path: {printable(str(root))} is not a directory. Pass the directory that contains the "
            "videos."
        )
    listing = _Listing(root, source)
    for path in listing.files():
        listing.add(path)
    if not listing.videos:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        nothing = f"{printable(str(root))} contains no video file ({suffixes}), subdirectories included."
        raise SourceError(" ".join([f"source.path: {nothing}", *listing.ignored().messages()]))
    return Manifest(
        videos=sorted(listing.videos, key=lambda video: video.video_id), ignored=listing.ignored()
    )


class _Listing:
    """A walk through the directory, with the videos and what it skipped."""

    def __init__(self, root: Path, source: Source) -> None:
        self._root = root
        self._source = source
        self._suffixes: Counter[str] = Counter()
        self._hidden = self._excluded = 0
        self._unreadable: list[str] = []
        self.videos: list[Video] = []

    def files(self) -> Iterator[Path]:
        """All files that are neither hidden nor excluded, through linked directories too, each directory once."""
        for directory, subdirectories, names in os.walk(self._root, onerror=self._skip, followlinks=True):
            here = Path(directory)
            # os.walk descends into this list.
            subdirectories[:] = [name for name in subdirectories if self._enters(here / name)]
            for name in names:
                if name.startswith("."):
                    self._hidden += 1
                elif self._is_excluded(uri := self._uri(here / name)) or not _matches(
                    uri, self._source.include
                ):
                    self._excluded += 1
                else:
                    yield here / name

    def add(self, path: Path) -> None:
        """List a file, or count it when it is not a video."""
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            self._suffixes[printable(suffix) or "no suffix"] += 1
            return
        uri = self._uri(path)
        size, modified_ns = _size_and_time(path)
        self.videos.append(
            Video(
                video_id=f"{self._source.name}/{uri}",
                source=self._source.name,
                uri=uri,
                path=str(path),
                license=self._source.license,
                bytes=size,
                modified_ns=modified_ns,
            )
        )

    def ignored(self) -> Ignored:
        """What was skipped so far."""
        return Ignored(
            suffixes=dict(sorted(self._suffixes.items())),
            hidden=self._hidden,
            excluded=self._excluded,
            unreadable=sorted(self._unreadable),
        )

    def _enters(self, directory: Path) -> bool:
        if directory.name.startswith("."):
            self._hidden += 1
            return False
        if self._is_excluded(f"{self._uri(directory)}/"):
            self._excluded += 1
            return False
        return not _leads_back(directory)

    def _skip(self, error: OSError) -> None:
        directory = Path(str(error.filename))
        if error.errno not in NOT_PERMITTED or directory == self._root:
            raise _cannot_read(error) from error
        self._unreadable.append(f"{self._uri(directory)}/")

    def _is_excluded(self, uri: str) -> bool:
        return _matches(uri, self._source.exclude)

    def _uri(self, path: Path) -> str:
        return printable(path.relative_to(self._root).as_posix())


def _matches(uri: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(uri, glob) for glob in globs)


def _leads_back(directory: Path) -> bool:
    return directory.is_symlink() and directory.resolve() in (
        parent.resolve() for parent in directory.parents
    )


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns; zeros for a file when only its name can be read."""
    try:
        # A dangling link has no size of its own: it stays in the manifest and fails as unreadable.
        facts = path.stat() if path.exists() else path.lstat()
    except OSError as error:
        if error.errno in NOT_PERMITTED:
            return 0, 0
        raise _cannot_read(error) from error
    return facts.st_size, facts.st_mtime_ns


def _cannot_read(error: OSError) -> SourceError:
    return SourceError(
        f"source.path: cannot read {printable(str(error.filename))}: {error.strerror}. Check that the storage is "
        "mounted and readable, then run the same command again."
    )
