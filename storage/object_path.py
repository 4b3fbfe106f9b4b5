"""Paths into object stores, with the methods of `pathlib.Path` that the project uses.

What an object store does not have, such as locks and renames, has no method here: an object appears whole when
`write_bytes` or `shards.atomic` has written it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from storage.backends import Entry
from storage.bucket import Bucket
from storage.errors import NoSuchFile, UrlError
from storage.store import CHUNK


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


@lru_cache(maxsize=64)
def _bucket(root: str) -> Bucket:
    return Bucket(root)
