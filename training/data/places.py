"""Where the files of a data set lie: in a folder, or in an object store that obstore speaks to.

A place only reads; it lets every error through, and `store.py` decides what an error means. A folder is read with
plain system calls: that takes a quarter of the time that a general store needs for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from settings.section import ConfigError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https", "http", "file")
CONNECT_S = 5.0
STALL_S = 10.0
"""A connection on which nothing comes for so long is given up."""
REQUEST_S = 60.0
"""A request that takes longer as a whole is given up."""
_HTTP_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)


class Place(Protocol):
    """Files below a root. Paths have `/` between folders."""

    lists: bool
    """Whether the sizes of many files can be had by one request."""

    def range(self, path: str, offset: int, length: int) -> bytes | memoryview:
        """Some bytes of a file; fewer where it ends before."""

    def whole(self, path: str) -> bytes:
        """A small file as a whole."""

    def size(self, path: str) -> int:
        """Bytes of a file."""

    def sizes(self, folder: str) -> Iterable[tuple[str, int]]:
        """Path and bytes of all files in a folder."""


class Folder:
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

    def sizes(self, folder: str) -> list[tuple[str, int]]:
        """Path and bytes of all files in a folder, which may be missing."""
        if not (self._folder / folder).is_dir():
            return []
        with os.scandir(self._folder / folder) as entries:
            return [(f"{folder}/{entry.name}", entry.stat().st_size) for entry in entries if entry.is_file()]


class Objects:
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

    def sizes(self, folder: str) -> list[tuple[str, int]]:
        """Path and bytes of all objects below a prefix."""
        import obstore

        return [
            (entry["path"], entry["size"]) for entry in obstore.list(self._store, prefix=folder).collect()
        ]


def open_place(root: str) -> Place:
    """The place that a root names.

    Raises:
        NotADirectoryError: there is no such folder.
        obstore.exceptions.BaseError: the address, or what the environment says of it, cannot be used.
    """
    if is_folder(root):
        folder = folder_of(root)
        if not folder.is_dir():
            raise NotADirectoryError(root)
        return Folder(folder)
    from obstore.store import HTTPStore, from_url

    # obstore's own retries see status codes, but not a body that comes short; `store.py` tries again instead.
    store = from_url(
        root,
        retry_config={"max_retries": 0},
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=STALL_S),
            "timeout": timedelta(seconds=REQUEST_S),
            "allow_http": root.startswith("http://") or any(map(_is_http, _HTTP_ENDPOINTS)),
        },
    )
    return Objects(store, lists=not isinstance(store, HTTPStore))


def is_folder(root: str) -> bool:
    """Whether a root is a folder rather than the address of a store."""
    return "://" not in root or root.startswith("file://")


def folder_of(root: str) -> Path:
    """The folder that such a root names."""
    return Path(urlsplit(root).path if "://" in root else root).expanduser()


def check_root(root: str) -> None:
    """Refuse addresses that hold secrets or that nothing here can read.

    Raises:
        ConfigError: without repeating the address, where it may hold a secret.
    """
    if "://" not in root:
        scheme, slash, rest = root.partition(":/")
        if slash and scheme in SCHEMES:
            raise ConfigError(f"data.root={root}: an address has two slashes: {scheme}://{rest}")
        return
    try:
        parts = urlsplit(root)
    except ValueError:
        raise ConfigError("data.root is no valid address") from None
    container = parts.scheme in {"abfs", "abfss"} and parts.password is None
    if parts.query or parts.fragment or ("@" in parts.netloc and not container):
        raise ConfigError(
            "data.root: an address with a user name, a password or a query in it is refused, because the "
            f"configuration is stored and shown. Put the credentials into the environment ({credentials_of(root)})"
        )
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"data.root={root}: addresses begin with {', '.join(f'{name}://' for name in SCHEMES)}"
        )


def credentials_of(root: str) -> str:
    """The variables of the environment that hold the credentials of a kind of storage."""
    scheme = root.partition("://")[0]
    if scheme in {"s3", "s3a"}:
        return "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL"
    if scheme == "gs":
        return "GOOGLE_APPLICATION_CREDENTIALS"
    if scheme in {"az", "azure", "abfs", "abfss", "adl"}:
        return "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY"
    return "a web server's folder must be readable without credentials"


def _is_http(variable: str) -> bool:
    return os.environ.get(variable, "").startswith("http://")
