"""Files in a directory or in an object store alike: what takes `AnyPath` works on both."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from storage.errors import StorageError
from storage.object_path import ObjectPath
from storage.scratch import scratch_folder
from storage.urls import check_url, is_local, local_directory

__all__ = [
    "AnyPath",
    "ObjectPath",
    "local_copy",
    "modified_ns",
    "open_upload",
    "path_of",
    "path_of_listed",
    "read_range",
    "size_of",
]

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
