"""Storage backends: a directory, or an object store that obstore speaks to.

A backend lets every error through, and `store.py` decides what an error means. A directory is read with plain
system calls: that takes a quarter of the time that a general store needs for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from storage.urls import is_local, local_directory

CONNECT_S = 5.0
STALL_S = 10.0
"""A connection on which nothing comes for so long is given up."""
REQUEST_S = 60.0
"""A request that takes longer as a whole is given up."""
PART = 16 * 2**20
"""Larger objects are written in parts."""
_HTTP_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)


OVERWRITE, CREATE = "overwrite", "create"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing.

    Attributes:
        path: relative to the root.
        size: in bytes.
        modified_ns: time of change.
    """

    path: str
    size: int
    modified_ns: int


class Backend(Protocol):
    """Files below a root, to read. Paths have `/` between folders."""

    lists: bool
    """Whether the sizes of many files can be had by one request."""

    def range(self, path: str, offset: int, length: int) -> bytes | memoryview:
        """Some bytes of a file; fewer where it ends before."""

    def whole(self, path: str) -> bytes:
        """A small file as a whole."""

    def size(self, path: str) -> int:
        """Bytes of a file."""

    def entries(self, folder: str) -> Iterable[Entry]:
        """All files in a folder and below; none where it is missing."""


class LocalDirectory:
    """Files on a disk of this machine, or on one that it mounts."""

    lists = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def range(self, path: str, offset: int, length: int) -> bytes:
        """Some bytes of a file; fewer where it ends before."""
        descriptor = os.open(self._folder / path, os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def whole(self, path: str) -> bytes:
        """A small file as a whole."""
        return (self._folder / path).read_bytes()

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return (self._folder / path).stat().st_size

    def entries(self, folder: str) -> Iterator[Entry]:
        """All files in a folder and below; none where it is missing."""
        for directory, _, names in os.walk(self._folder / folder):
            for name in names:
                path = Path(directory, name)
                facts = path.stat()
                yield Entry(path.relative_to(self._folder).as_posix(), facts.st_size, facts.st_mtime_ns)


class ObjectStore:
    """Objects of a store, or files of a web server."""

    def __init__(self, store: Any, *, lists: bool) -> None:
        self._store = store
        self.lists = lists

    def range(self, path: str, offset: int, length: int) -> memoryview:
        """Some bytes of an object; fewer where it ends before."""
        import obstore

        return memoryview(obstore.get_range(self._store, path, start=offset, length=length))

    def whole(self, path: str) -> bytes:
        """A small object as a whole."""
        import obstore

        return bytes(obstore.get(self._store, path).bytes())

    def size(self, path: str) -> int:
        """Bytes of an object."""
        import obstore

        return int(obstore.head(self._store, path)["size"])

    def entries(self, folder: str) -> Iterator[Entry]:
        """All objects below a prefix."""
        import obstore

        for batch in obstore.list(self._store, prefix=folder or None):
            for entry in batch:
                modified_ns = int(entry["last_modified"].timestamp() * 1e9)
                yield Entry(entry["path"], entry["size"], modified_ns)

    def names(self, folder: str) -> list[str]:
        """Names of the objects and prefixes directly below a prefix."""
        import obstore

        found = obstore.list_with_delimiter(self._store, prefix=folder or None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return [path.rpartition("/")[2] for path in paths]

    def holds(self, folder: str) -> bool:
        """Whether there is an object below a prefix."""
        import obstore

        return any(map(len, obstore.list(self._store, prefix=folder or None, chunk_size=1)))

    def version(self, path: str) -> str:
        """The entity tag, which changes with every write."""
        import obstore

        return str(obstore.head(self._store, path)["e_tag"])

    def facts(self, path: str) -> Entry:
        """Size and time of change of an object."""
        import obstore

        found = obstore.head(self._store, path)
        return Entry(path, int(found["size"]), int(found["last_modified"].timestamp() * 1e9))

    def write(self, path: str, data: bytes | Path, mode: str = OVERWRITE) -> str:
        """Write an object, a large one in parts; returns its version.

        Args:
            path: of the object.
            data: its bytes, or a file that holds them.
            mode: `OVERWRITE`; `CREATE`, which fails where an object is there; or the version that must be there.
        """
        import obstore

        wanted = mode if mode in {OVERWRITE, CREATE} else {"e_tag": mode}
        parts = mode == OVERWRITE and (isinstance(data, Path) or len(data) > PART)
        found = obstore.put(self._store, path, data, mode=wanted, use_multipart=parts, chunk_size=PART)
        return str(found["e_tag"])

    def delete(self, paths: list[str]) -> None:
        """Remove objects; those that are not there are no error."""
        import obstore

        obstore.delete(self._store, paths)


def open_backend(url: str) -> Backend:
    """The backend that a path or a URL names, for reading.

    Raises:
        NotADirectoryError: there is no such directory.
        obstore.exceptions.BaseError: the URL, or what the environment says of it, cannot be used.
    """
    if is_local(url):
        folder = local_directory(url)
        if not folder.is_dir():
            raise NotADirectoryError(url)
        return LocalDirectory(folder)
    # obstore's own retries see status codes, but not a body that comes short; `store.py` tries again instead.
    return open_object_store(url, retries=0)


def open_object_store(url: str, retries: int) -> ObjectStore:
    """The objects below a URL.

    Args:
        url: no directory.
        retries: of each request by obstore itself.

    Raises:
        obstore.exceptions.BaseError: the URL, or what the environment says of it, cannot be used.
        ValueError: the URL of a server in the environment is none.
    """
    from obstore.store import HTTPStore, from_url

    _check_endpoints()
    store = from_url(
        url,
        retry_config={"max_retries": retries},
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=STALL_S),
            "timeout": timedelta(seconds=REQUEST_S),
            "allow_http": url.startswith("http://") or any(map(_is_http, _HTTP_ENDPOINTS)),
        },
    )
    return ObjectStore(store, lists=not isinstance(store, HTTPStore))


def endpoint_hint(url: str) -> str:
    """The variable that names the server, in brackets, where it is set; without a secret before an `@`."""
    names = _HTTP_ENDPOINTS[:3] if url.startswith("s3") else _HTTP_ENDPOINTS[3:]
    for name in names:
        if value := os.environ.get(name):
            return f" ({name}={value if '@' not in value else '<URL>'})"
    return ""


def _check_endpoints() -> None:
    """The client ends the process over a URL that it cannot parse."""
    for variable in _HTTP_ENDPOINTS:
        value = os.environ.get(variable)
        if value is not None and not re.match(r"https?://[^/\s]", value):
            shown = "is empty" if not value else "does not begin with http:// or https:// and a host"
            raise ValueError(f"{variable} {shown}")


def _is_http(variable: str) -> bool:
    return os.environ.get(variable, "").startswith("http://")
