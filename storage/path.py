"""Paths into object stores, with the methods of `pathlib.Path` that the project uses.

Code that takes `AnyPath` works on a directory and on a bucket alike. What a bucket does not have, such as locks
and renames, has no method here: a file appears whole when `write_bytes` or `shards.atomic` has written it.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from storage.backends import Entry
from storage.bucket import Bucket
from storage.errors import NoSuchFile, StorageError, UrlError
from storage.scratch import scratch_folder
from storage.store import CHUNK
from storage.urls import check_url, is_local, local_directory


class ObjectPath:
    """An object, or a prefix of objects.

    Args:
        root: the bucket's URL, such as s3://bucket.
        key: of the object; empty for the whole bucket.
    """

    __slots__ = ("key", "root")

    def __init__(self, root: str, key: str) -> None:
        self.root = root
        self.key = key.strip("/")

    @property
    def bucket(self) -> Bucket:
        """The bucket; one client for each in a process."""
        return _bucket(self.root)

    def __truediv__(self, name: str | PurePosixPath) -> ObjectPath:
        parts = [part for part in (self.key, str(name).strip("/")) if part]
        if ".." in PurePosixPath(str(name)).parts:
            raise UrlError(f"{name} leads out of {self}")
        return ObjectPath(self.root, "/".join(parts))

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[type[ObjectPath], tuple[str, str]]:
        return ObjectPath, (self.root, self.key)

    @property
    def name(self) -> str:
        """What follows the last `/`."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> ObjectPath:
        """The prefix that holds this one; that of a bucket is itself."""
        return ObjectPath(self.root, self.key.rpartition("/")[0])

    @property
    def parents(self) -> list[ObjectPath]:
        """All prefixes that hold this one, the nearest first."""
        found, path = [], self
        while path.key:
            path = path.parent
            found.append(path)
        return found

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """The part behind another path.

        Raises:
            ValueError: it is not below the other.
        """
        if self.root != other.root:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)

    def absolute(self) -> ObjectPath:
        """Itself."""
        return self

    def resolve(self) -> ObjectPath:
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether there is such an object, or one below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return bool(self.key) and self.bucket.size(self.key) is not None

    def is_dir(self) -> bool:
        """Whether there is an object below."""
        return self.bucket.holds(self.key)

    def is_symlink(self) -> bool:
        """Never: there are no links."""
        return False

    def size(self) -> int:
        """Bytes of the object.

        Raises:
            NoSuchFile: there is none.
        """
        found = self.bucket.size(self.key)
        if found is None:
            # The answer to a request for the size has no room for the reason, such as a missing bucket.
            self.bucket.range(self.key, 0, 1)
            raise NoSuchFile(f"there is no {self}", str(self))
        return found

    def entries(self) -> list[Entry]:
        """All objects below; their paths are relative to this one."""
        start = len(self.key) + 1 if self.key else 0
        return [
            Entry(entry.path[start:], entry.size, entry.modified_ns)
            for entry in self.bucket.entries(self.key)
        ]

    def iterdir(self) -> Iterator[ObjectPath]:
        """The objects and prefixes directly below."""
        for name in self.bucket.names(self.key):
            yield self / name

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """The objects below whose path matches, part by part; `**` is not known."""
        wanted = pattern.split("/")
        if len(wanted) == 1 and not set(pattern) & set("*?["):
            yield from [self / pattern] if (self / pattern).is_file() else []
            return
        paths = self.bucket.names(self.key) if len(wanted) == 1 else [entry.path for entry in self.entries()]
        for path in paths:
            parts = path.split("/")
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield self / path

    def read_bytes(self) -> bytes:
        """The object as a whole."""
        return self.bucket.large(self.key, self.size())

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        """Write the object, in place of one that is there."""
        self.bucket.write(self.key, data)

    def open(
        self,
        mode: str = "r",
        buffering: int = CHUNK,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """The object as a file to read, by ranges of `buffering` bytes or more.

        Raises:
            ValueError: for writing, use `shards.atomic`.
        """
        if mode not in {"r", "rb"}:
            raise ValueError(f"an object cannot be opened with mode {mode!r}")
        file = io.BufferedReader(_Ranges(self.bucket, self.key, self.size()), buffering)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        del missing_ok  # a store does not say whether there was one
        self.bucket.delete([self.key])

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: prefixes need not be made."""


class _Ranges(io.RawIOBase):
    """Reads an object by range requests."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key, self._size = bucket, key, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        buffer[:length] = self._bucket.range(self._key, self._position, length)
        self._position += length
        return length


AnyPath = Path | ObjectPath


def path_of(url: str) -> AnyPath:
    """The path that a URL names: of a directory, or into an object store.

    Raises:
        UrlError: nothing here can read it, or it holds a secret.
    """
    check_url(url)
    if is_local(url):
        return local_directory(url)
    parts = urlsplit(url)
    return ObjectPath(f"{parts.scheme}://{parts.netloc}", parts.path)


def path_of_listed(url: str) -> AnyPath:
    """The path behind the text of one that was listed: a key may hold any character, such as `?` and `#`."""
    scheme, separator, rest = url.partition("://")
    if not separator or url.startswith("/"):
        return Path(url)
    bucket, _, key = rest.partition("/")
    return ObjectPath(f"{scheme}://{bucket}", key)


def size_of(path: AnyPath) -> int | None:
    """Bytes of a file; None where there is none."""
    if isinstance(path, ObjectPath):
        return path.bucket.size(path.key) if path.key else None
    return path.stat().st_size if path.is_file() else None


def modified_ns(path: AnyPath) -> int | None:
    """Time of change of a file; None where there is none."""
    if isinstance(path, ObjectPath):
        found = path.bucket.facts(path.key)
        return None if found is None else found.modified_ns
    return path.stat().st_mtime_ns if path.is_file() else None


def read_range(path: AnyPath, offset: int, length: int) -> bytes:
    """Some bytes of a file; fewer where a local one ends before."""
    if isinstance(path, ObjectPath):
        return bytes(path.bucket.range(path.key, offset, length))
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


@contextmanager
def local_copy(path: AnyPath, folder: Path | None = None) -> Iterator[Path]:
    """A file as one of this machine: itself, or a copy that is gone with the block.

    Args:
        path: of the file.
        folder: for the copy; this process's scratch directory when None.

    Raises:
        StorageError: it cannot be read, or there is no room for the copy.
        OSError: the copy cannot be written.
    """
    if not isinstance(path, ObjectPath):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=path.suffix, dir=folder or scratch_folder()) as copy:
        with _room_named():
            path.bucket.fetch(path.key, Path(copy.name))
        yield Path(copy.name)


@contextmanager
def open_upload(path: ObjectPath) -> Iterator[IO[bytes]]:
    """A file to write; it becomes the object when the block ends without an error.

    Raises:
        StorageError: the object cannot be written.
        OSError: the system's temporary directory cannot hold it.
    """
    with tempfile.NamedTemporaryFile(dir=scratch_folder()) as file:
        yield file
        file.flush()
        path.bucket.write(path.key, Path(file.name))


@contextmanager
def _room_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        folder = tempfile.gettempdir()
        raise StorageError(
            f"{folder} is full. Free space there, or set TMPDIR to a larger disk", folder, errno.ENOSPC
        ) from error


@lru_cache(maxsize=64)
def _bucket(root: str) -> Bucket:
    return Bucket(root)
