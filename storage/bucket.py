"""An object store to read and to write: objects appear whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from storage.ahead import map_ahead
from storage.backends import CREATE, OVERWRITE, Entry, ObjectStore, open_object_store
from storage.errors import NoSuchFile, StorageError
from storage.store import CHUNK, PARALLEL, RETRY_S, Store

WRITE_RETRIES = 10
"""Of each request of a write, by obstore: a large object is many requests."""
MOST_DELETED = 1000
"""Objects that one request removes."""


class Bucket(Store):
    """The objects below a URL.

    Args:
        root: such as s3://bucket/prefix; no directory.
        retry_s: how long a request is tried.

    Raises:
        UrlError: the root is no URL that can be read, or holds a secret.
        StorageError: it cannot be opened.
    """

    def __init__(self, root: str, retry_s: float = RETRY_S) -> None:
        super().__init__(root, retry_s)
        self._objects: ObjectStore = open_object_store(self.root, WRITE_RETRIES)

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, float]]:
        return Bucket, (self.root, self.retry_s)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All objects below a prefix that ends with a whole name, by pages.

        Raises:
            StorageError: it cannot be listed.
        """
        # A page that fails ends the listing: obstore tries each page by itself, and this all of them.
        yield from self._retried(f"{folder}/", lambda: list(self._objects.entries(folder)))

    def names(self, folder: str = "") -> list[str]:
        """Names of the objects and prefixes directly below a prefix, sorted.

        Raises:
            StorageError: it cannot be listed.
        """
        return sorted(self._retried(f"{folder}/", lambda: self._objects.names(folder)))

    def holds(self, folder: str) -> bool:
        """Whether there is an object below a prefix.

        Raises:
            StorageError: it cannot be listed.
        """
        return self._retried(f"{folder}/", lambda: self._objects.holds(folder))

    def facts(self, path: str) -> Entry | None:
        """Size and time of change of an object; None when it is not there.

        Raises:
            StorageError: they cannot be learned.
        """
        try:
            return self._retried(path, lambda: self._objects.facts(path))
        except NoSuchFile:
            return None

    def fetch(self, path: str, target: Path) -> Entry:
        """Copy an object into a file of this machine.

        Args:
            path: of the object.
            target: the file; it is replaced.

        Returns:
            Size and time of change of the object.

        Raises:
            NoSuchFile: there is no such object.
            StorageError: it cannot be read, or it was replaced meanwhile.
            OSError: the file cannot be written.
        """
        found = self.facts(path)
        if found is None:
            # The answer to a request for the size has no room for the reason, such as a missing bucket.
            self.range(path, 0, 1)
            raise NoSuchFile(f"{self.root} has no {path}", f"{self.root}/{path}")
        length = found.size

        def part(start: int) -> bytes | memoryview:
            return self.range(path, start, min(CHUNK, length - start))

        with target.open("wb") as file, ThreadPoolExecutor(PARALLEL) as pool:
            for data in map_ahead(part, range(0, length, CHUNK), pool, PARALLEL):
                file.write(data)
        # Ranges of two versions would make a file that never was.
        if length > CHUNK and self.facts(path) != found:
            raise StorageError(f"{self.root}/{path} was replaced while it was read", f"{self.root}/{path}")
        return found

    def write(self, path: str, data: bytes | Path) -> None:
        """Write an object, in place of one that is there.

        Args:
            path: of the object.
            data: its bytes, or a file that holds them.

        Raises:
            StorageError: it cannot be written.
        """
        self._retried(path, lambda: self._objects.write(path, data, OVERWRITE), done="written")

    def create(self, path: str, data: bytes) -> str | None:
        """Write an object where there is none; None where there is another one.

        Returns:
            The version that was written.

        Raises:
            StorageError: it cannot be written.
        """
        return self._written_once(path, data, CREATE)

    def replace(self, path: str, data: bytes, version: str) -> str | None:
        """Write an object in place of one version of it; None where another is there, or none.

        Returns:
            The version that was written.

        Raises:
            StorageError: it cannot be written.
        """
        return self._written_once(path, data, version)

    def _written_once(self, path: str, data: bytes, mode: str) -> str | None:
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        refused = (AlreadyExistsError, NotFoundError, PreconditionError, FileNotFoundError)
        try:
            return self._retried(path, lambda: self._objects.write(path, data, mode), refused, done="written")
        except refused:
            # It may be ours: the answer to a try before was lost.
            try:
                return self.version(path) if self.whole(path) == data else None
            except NoSuchFile:
                return None

    def version(self, path: str) -> str | None:
        """What changes with every write of an object; None when it is not there.

        Raises:
            StorageError: it cannot be learned.
        """
        try:
            return self._retried(path, lambda: self._objects.version(path))
        except NoSuchFile:
            return None

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error.

        Raises:
            StorageError: they cannot be removed.
        """
        for start in range(0, len(paths), MOST_DELETED):
            some = list(paths[start : start + MOST_DELETED])
            try:
                self._delete(some)
            except NoSuchFile:
                # A store may say so of one of them, and leave the rest.
                for path in some:
                    with suppress(NoSuchFile):
                        self._delete([path])

    def _delete(self, paths: list[str]) -> None:
        self._retried(paths[0], lambda: self._objects.delete(paths), done="removed")
