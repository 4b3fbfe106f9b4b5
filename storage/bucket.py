"""An object store to read and to write: objects appear whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.ahead import map_ahead
from storage.errors import NoSuchFile
from storage.places import CREATE, OVERWRITE, Entry, Objects, open_objects
from storage.store import CHUNK, PARALLEL, RETRY_S, Store

WRITE_RETRIES = 10
"""Of each request of a write, by obstore: a large object is many requests."""
MOST_DELETED = 1000
"""Objects that one request removes."""


class Bucket(Store):
    """The objects below an address.

    Args:
        root: such as s3://bucket/prefix; no directory.
        retry_s: how long a request is tried.

    Raises:
        AddressError: the root is no address that can be read, or holds a secret.
        StorageError: it cannot be opened.
    """

    def __init__(self, root: str, retry_s: float = RETRY_S) -> None:
        super().__init__(root, retry_s)
        self._objects: Objects = open_objects(self.root, WRITE_RETRIES)

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, float]]:
        return Bucket, (self.root, self.retry_s)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All objects below a prefix that ends with a whole name, by pages.

        Raises:
            StorageError: it cannot be listed.
        """
        # A page that fails ends the listing, so it is tried as a whole.
        yield from self._patiently(f"{folder}/", lambda: list(self._place.entries(folder)))

    def names(self, folder: str = "") -> list[str]:
        """Names of the objects and prefixes directly below a prefix, sorted.

        Raises:
            StorageError: it cannot be listed.
        """
        return sorted(self._patiently(f"{folder}/", lambda: self._objects.names(folder)))

    def holds(self, folder: str) -> bool:
        """Whether there is an object below a prefix.

        Raises:
            StorageError: it cannot be listed.
        """
        return self._patiently(f"{folder}/", lambda: self._objects.holds(folder))

    def fetch(self, path: str, target: Path, size: int | None = None) -> None:
        """Copy an object into a file of this machine.

        Args:
            path: of the object.
            target: the file; it is replaced.
            size: of the object in bytes, when it is known.

        Raises:
            NoSuchFile: there is no such object.
            StorageError: it cannot be read.
            OSError: the file cannot be written.
        """
        found = self.size(path) if size is None else size
        if found is None:
            raise NoSuchFile(f"{self.root} has no {path}", f"{self.root}/{path}")
        length = found

        def part(start: int) -> bytes | memoryview:
            return self.range(path, start, min(CHUNK, length - start))

        with target.open("wb") as file, ThreadPoolExecutor(PARALLEL) as pool:
            for data in map_ahead(part, range(0, length, CHUNK), pool, PARALLEL):
                file.write(data)

    def write(self, path: str, data: bytes | Path) -> None:
        """Write an object, in place of one that is there.

        Args:
            path: of the object.
            data: its bytes, or a file that holds them.

        Raises:
            StorageError: it cannot be written.
        """
        self._patiently(path, lambda: self._objects.write(path, data, OVERWRITE), done="written")

    def create(self, path: str, data: bytes) -> bool:
        """Write an object where there is none; False where there is another one.

        Raises:
            StorageError: it cannot be written.
        """
        from obstore.exceptions import AlreadyExistsError

        try:
            self._patiently(
                path, lambda: self._objects.write(path, data, CREATE), (AlreadyExistsError,), done="written"
            )
        except AlreadyExistsError:
            # It may be ours: the answer to a try before was lost.
            return self.whole(path) == data
        return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Write an object in place of one version of it; False where another is there.

        Raises:
            StorageError: it cannot be written.
        """
        from obstore.exceptions import NotFoundError, PreconditionError

        try:
            self._patiently(
                path,
                lambda: self._objects.write(path, data, version),
                (PreconditionError, NotFoundError, FileNotFoundError),
                done="written",
            )
        except (PreconditionError, NotFoundError, FileNotFoundError):
            try:
                return self.whole(path) == data
            except NoSuchFile:
                return False
        return True

    def version(self, path: str) -> str | None:
        """What changes with every write of an object; None when it is not there.

        Raises:
            StorageError: it cannot be learned.
        """
        try:
            return self._patiently(path, lambda: self._objects.version(path))
        except NoSuchFile:
            return None

    def modified_ns(self, path: str) -> int | None:
        """Time of change of an object; None when it is not there.

        Raises:
            StorageError: it cannot be learned.
        """
        try:
            return self._patiently(path, lambda: self._objects.modified_ns(path))
        except NoSuchFile:
            return None

    def delete(self, paths: list[str]) -> None:
        """Remove objects; those that are not there are no error.

        Raises:
            StorageError: they cannot be removed.
        """
        for start in range(0, len(paths), MOST_DELETED):
            some = paths[start : start + MOST_DELETED]
            try:
                self._patiently(some[0], lambda some=some: self._objects.delete(some), done="removed")  # type: ignore[misc]
            except NoSuchFile:
                continue
