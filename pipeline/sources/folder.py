"""Any directory of video files, searched with its subdirectories.

Every file that looks like a video is listed, also one that cannot be read: it becomes a failed row, not a gap.
All other files are counted, so that the counts add up to the content of the directory.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from pipeline.config import Source
from pipeline.sources.manifest import Ignored, Listing, SourceError, Video, printable
from pipeline.sources.rows import FoundFile, SourceRows
from shards.digests import is_frame, is_frame_name
from storage.backends import Entry
from storage.errors import StorageError
from storage.path import ObjectPath

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
"""Files that must be accounted for. Others (annotations, thumbnails) are ignored and counted."""
NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
"""Errors for a directory that belongs to another user and is skipped. Any other error may hide videos that the
next run would find, so it ends the build."""


DANGLING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP})
"""Errors for a link that leads nowhere."""


class NoVideo(SourceError):  # noqa: N818 - names what was found
    """A source can be listed, and has no video."""


def list_folder(source: Source) -> Listing:
    """List the videos below `source.path`.

    Raises:
        SourceError: the directory is missing, cannot be listed, or holds no video file.
    """
    rows = SourceRows()
    walk = walk_of(source)
    for file in walk.files():
        rows.add_file(file, file.uri)
    extent = rows.take_all()

    def videos(key: str | None) -> Iterator[Video]:
        return (video_of(source, file, file.uri) for file in rows.files(key))

    return Listing(source.name, extent, videos, walk.ignored())


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


def walk_of(
    source: Source, is_frames: Callable[[str], bool] = lambda _: False, annotations: str = ""
) -> Walk:
    """A walk through `source.path`.

    Args:
        source: where to look.
        is_frames: whether a directory of this name is a video as frames.
        annotations: glob of the names of annotation files, which are not counted.

    Raises:
        SourceError: the directory is missing.
    """
    root = source.path.absolute()
    if isinstance(root, ObjectPath):
        return _ObjectWalk(root, source, is_frames, annotations)
    if not root.is_dir():
        raise SourceError(
            f"source.path: {printable(str(root))} is not a directory. Pass the directory that contains the "
            "videos."
        )
    return _FolderWalk(root, source, is_frames, annotations)


class Walk(ABC):
    """A walk through a source, and what it skipped so far."""

    def __init__(self, source: Source, is_frames: Callable[[str], bool], annotations: str) -> None:
        self._source = source
        self._is_frames = is_frames
        self._annotations = annotations
        self._suffixes: Counter[str] = Counter()
        self._hidden = self._excluded = 0
        self._unreadable: list[str] = []

    def _skip_other(self, name: str) -> None:
        """Count a file that is no video, unless it is one that was read as an annotation."""
        if not fnmatchcase(name, self._annotations):
            self._suffixes[printable(PurePosixPath(name).suffix.lower()) or "no suffix"] += 1

    def files(self) -> Iterator[FoundFile]:
        """The videos in all that is neither hidden nor excluded.

        Raises:
            SourceError: the source cannot be listed, or holds no video.
        """
        found = 0
        for file in self._walk():
            found += 1
            yield file
        if not found:
            suffixes, root = ", ".join(sorted(VIDEO_SUFFIXES)), printable(str(self._source.path.absolute()))
            nothing = f"{root} contains no video file ({suffixes}), subdirectories included."
            raise NoVideo(" ".join([f"source.path: {nothing}", *self.ignored().messages()]))

    def ignored(self) -> Ignored:
        """What was skipped so far."""
        return Ignored(
            suffixes=dict(sorted(self._suffixes.items())),
            hidden=self._hidden,
            excluded=self._excluded,
            unreadable=sorted(self._unreadable),
        )

    @abstractmethod
    def _walk(self) -> Iterator[FoundFile]: ...

    def _is_excluded(self, uri: str) -> bool:
        return _matches(uri, self._source.exclude)

    def _is_included(self, uri: str) -> bool:
        return _matches(uri, self._source.include)


class _FolderWalk(Walk):
    """Through a directory, through links too, each directory once."""

    def __init__(
        self, root: Path, source: Source, is_frames: Callable[[str], bool], annotations: str
    ) -> None:
        super().__init__(source, is_frames, annotations)
        self._root = root

    def _walk(self) -> Iterator[FoundFile]:
        # Not os.walk, which holds the names of a whole directory.
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for entry in self._entries(folder):
                relative = f"{folder}{entry.name}"
                if _is_directory(entry):
                    if self._is_left_out(entry.name, relative):
                        continue
                    if self._is_frames(entry.name):
                        yield from self._frames(relative)
                    elif not _leads_back(self._root / relative):
                        waiting.append(f"{relative}/")
                elif self._takes(entry.name, relative):
                    yield FoundFile(printable(relative), relative, *_size_and_time(entry))

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / folder) as entries:
                yield from entries
        except OSError as error:
            self._skip(error)

    def _is_left_out(self, name: str, relative: str) -> bool:
        """Whether a directory is not read; it is counted then."""
        if name.startswith("."):
            self._hidden += 1
            return True
        if self._is_excluded(f"{printable(relative)}/"):
            self._excluded += 1
            return True
        return False

    def _takes(self, name: str, relative: str) -> bool:
        """Whether a file is listed; otherwise it is counted."""
        if name.startswith("."):
            self._hidden += 1
            return False
        uri = printable(relative)
        if self._is_excluded(uri) or not self._is_included(uri):
            self._excluded += 1
            return False
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            self._skip_other(name)
            return False
        return True

    def _frames(self, relative: str) -> Iterator[FoundFile]:
        """A directory of frames, as a video."""
        uri = printable(relative)
        if not self._is_included(uri):
            self._excluded += 1
            return
        try:
            frames = [entry.stat() for entry in os.scandir(self._root / relative) if is_frame(entry)]
        except OSError as error:
            self._skip(error)
            return
        size, modified_ns = sum(f.st_size for f in frames), max((f.st_mtime_ns for f in frames), default=0)
        yield FoundFile(uri, relative, size, modified_ns, is_folder=True)

    def _skip(self, error: OSError) -> None:
        directory = Path(str(error.filename))
        if error.errno not in NOT_PERMITTED or directory == self._root:
            raise _cannot_read(error) from error
        self._unreadable.append(f"{printable(directory.relative_to(self._root).as_posix())}/")


class _ObjectWalk(Walk):
    """Through the objects below a prefix."""

    def __init__(
        self, root: ObjectPath, source: Source, is_frames: Callable[[str], bool], annotations: str
    ) -> None:
        super().__init__(source, is_frames, annotations)
        self._root = root
        self._frames: dict[str, tuple[int, int]] = {}

    def _walk(self) -> Iterator[FoundFile]:
        try:
            entries = self._root.entries()
        except StorageError as error:
            raise SourceError(f"source.path: {error}") from error
        for entry in entries:
            yield from self._files(entry)
        for path, (size, modified_ns) in self._frames.items():
            yield FoundFile(printable(path), path, size, modified_ns, is_folder=True)

    def _files(self, entry: Entry) -> Iterator[FoundFile]:
        path = PurePosixPath(entry.path)
        video = next((parent for parent in (path, *path.parents) if self._is_frames(parent.name)), path)
        uri = printable(str(video))
        if entry.path.endswith("/"):
            return  # stands for an empty directory
        if any(part.startswith(".") for part in path.parts):
            self._hidden += 1
        elif self._is_excluded(uri) or not self._is_included(uri):
            self._excluded += 1
        elif video != path:
            size, modified_ns = self._frames.setdefault(str(video), (0, 0))
            if path.parent == video and is_frame_name(path.name):
                self._frames[str(video)] = (size + entry.size, max(modified_ns, entry.modified_ns))
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            yield FoundFile(uri, entry.path, entry.size, entry.modified_ns)
        else:
            self._skip_other(path.name)


def _matches(uri: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(uri, glob) for glob in globs)


def _leads_back(directory: Path) -> bool:
    return directory.is_symlink() and directory.resolve() in (
        parent.resolve() for parent in directory.parents
    )


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # as os.walk has it: a file that fails as unreadable when it is opened
        return False


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Size in bytes and time of change in ns; zeros for a file when only its name can be read."""
    try:
        facts = _facts(entry)
    except OSError as error:
        if error.errno in NOT_PERMITTED:
            return 0, 0
        raise _cannot_read(error) from error
    return facts.st_size, facts.st_mtime_ns


def _facts(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in DANGLING:
            raise
        # A dangling link has no size of its own: it stays in the manifest and fails as unreadable.
        return entry.stat(follow_symlinks=False)


def _cannot_read(error: OSError) -> SourceError:
    return SourceError(
        f"source.path: cannot read {printable(str(error.filename))}: {error.strerror}. Check that the storage is "
        "mounted and readable, then run the same command again."
    )
