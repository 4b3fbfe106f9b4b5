"""Any directory of video files, searched with its subdirectories.

Every file that looks like a video is listed, also one that cannot be read: it becomes a failed row, not a gap.
All other files are counted, so that the counts add up to the content of the directory.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from pipeline.config import Source
from pipeline.sources.manifest import Ignored, Listing, SourceError, Video, printable
from shards.digests import IMAGE_SUFFIXES, is_frame
from storage.errors import StorageError
from storage.path import ObjectPath
from storage.places import Entry

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
"""Files that must be accounted for. Others (annotations, thumbnails) are ignored and counted."""
NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
"""Errors for a directory that belongs to another user and is skipped. Any other error may hide videos that the
next run would find, so it ends the build."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A video file, or a directory of frames.

    Attributes:
        uri: path relative to the source's root, printable.
        path: the same as the system has it.
        bytes: size; of a directory, that of its frames.
        modified_ns: time of change; of a directory, the latest of its frames.
        is_folder: whether it is a directory of frames.
    """

    uri: str
    path: str
    bytes: int
    modified_ns: int
    is_folder: bool = False


@dataclass(frozen=True)
class Found:
    """The videos below a root, sorted by uri, and what was skipped."""

    files: list[FoundFile]
    ignored: Ignored


def list_folder(source: Source) -> Listing:
    """List the videos below `source.path`.

    Raises:
        SourceError: the directory is missing, cannot be listed, or holds no video file.
    """
    found = find_files(source)
    by_uri = {file.uri: file for file in found.files}
    return Listing(source.name, list(by_uri), lambda uri: video_of(source, by_uri[uri], uri), found.ignored)


def video_of(source: Source, file: FoundFile, key: str) -> Video:
    """The video that a file is, with the id that ends with `key`."""
    return Video(
        video_id=f"{source.name}/{key}",
        source=source.name,
        uri=file.uri,
        path=str(source.path.absolute() / file.path),
        license=source.license,
        bytes=file.bytes,
        modified_ns=file.modified_ns,
    )


def find_files(source: Source, is_frames: Callable[[str], bool] = lambda _: False) -> Found:
    """Find the video files below `source.path`.

    Args:
        source: where to look.
        is_frames: whether a directory of this name is a video as frames.

    Raises:
        SourceError: the directory is missing, cannot be listed, or holds no video.
    """
    root = source.path.absolute()
    walk: _Walk | _ObjectWalk
    if isinstance(root, ObjectPath):
        walk = _ObjectWalk(root, source, is_frames)
    elif root.is_dir():
        walk = _Walk(root, source, is_frames)
    else:
        raise SourceError(
            f"source.path: {printable(str(root))} is not a directory. Pass the directory that contains the "
            "videos."
        )
    walk.run()
    if not walk.files:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        nothing = f"{printable(str(root))} contains no video file ({suffixes}), subdirectories included."
        raise SourceError(" ".join([f"source.path: {nothing}", *walk.ignored().messages()]))
    return Found(sorted(walk.files, key=lambda file: file.uri), walk.ignored())


class _Walk:
    """A walk through the directory, with the videos and what it skipped."""

    def __init__(self, root: Path, source: Source, is_frames: Callable[[str], bool]) -> None:
        self._root = root
        self._source = source
        self._is_frames = is_frames
        self._suffixes: Counter[str] = Counter()
        self._hidden = self._excluded = 0
        self._unreadable: list[str] = []
        self.files: list[FoundFile] = []

    def run(self) -> None:
        """Look at all that is neither hidden nor excluded, through linked directories too, each directory once."""
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
                    self._add(here / name)

    def _add(self, path: Path) -> None:
        """List a file, or count it when it is not a video."""
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            self._suffixes[printable(suffix) or "no suffix"] += 1
            return
        size, modified_ns = _size_and_time(path)
        self.files.append(FoundFile(self._uri(path), self._relative(path), size, modified_ns))

    def _add_frames(self, folder: Path) -> None:
        if not _matches(self._uri(folder), self._source.include):
            self._excluded += 1
            return
        try:
            frames = [entry.stat() for entry in os.scandir(folder) if is_frame(entry)]
        except OSError as error:
            self._skip(error)
            return
        size, modified_ns = sum(f.st_size for f in frames), max((f.st_mtime_ns for f in frames), default=0)
        self.files.append(
            FoundFile(self._uri(folder), self._relative(folder), size, modified_ns, is_folder=True)
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
        if self._is_frames(directory.name):
            self._add_frames(directory)
            return False
        return not _leads_back(directory)

    def _skip(self, error: OSError) -> None:
        directory = Path(str(error.filename))
        if error.errno not in NOT_PERMITTED or directory == self._root:
            raise _cannot_read(error) from error
        self._unreadable.append(f"{self._uri(directory)}/")

    def _is_excluded(self, uri: str) -> bool:
        return _matches(uri, self._source.exclude)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _uri(self, path: Path) -> str:
        return printable(self._relative(path))


class _ObjectWalk:
    """The same through the objects below a prefix."""

    def __init__(self, root: ObjectPath, source: Source, is_frames: Callable[[str], bool]) -> None:
        self._root = root
        self._source = source
        self._is_frames = is_frames
        self._suffixes: Counter[str] = Counter()
        self._hidden = self._excluded = 0
        self._frames: dict[str, tuple[int, int]] = {}
        self.files: list[FoundFile] = []

    def run(self) -> None:
        """Look at all objects that are neither hidden nor excluded.

        Raises:
            SourceError: they cannot be listed.
        """
        try:
            entries = self._root.entries()
        except StorageError as error:
            raise SourceError(f"source.path: {error}") from error
        for entry in entries:
            self._add(entry)
        for path, (size, modified_ns) in self._frames.items():
            self.files.append(FoundFile(printable(path), path, size, modified_ns, is_folder=True))

    def _add(self, entry: Entry) -> None:
        path = PurePosixPath(entry.path)
        video = next((parent for parent in (path, *path.parents) if self._is_frames(parent.name)), path)
        uri = printable(str(video))
        if entry.path.endswith("/"):
            return  # stands for an empty directory
        if any(part.startswith(".") for part in path.parts):
            self._hidden += 1
        elif _matches(uri, self._source.exclude) or not _matches(uri, self._source.include):
            self._excluded += 1
        elif video != path:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                size, modified_ns = self._frames.get(str(video), (0, 0))
                self._frames[str(video)] = (size + entry.size, max(modified_ns, entry.modified_ns))
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            self.files.append(FoundFile(uri, entry.path, entry.size, entry.modified_ns))
        else:
            self._suffixes[printable(path.suffix.lower()) or "no suffix"] += 1

    def ignored(self) -> Ignored:
        """What was skipped so far."""
        return Ignored(
            suffixes=dict(sorted(self._suffixes.items())), hidden=self._hidden, excluded=self._excluded
        )


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
