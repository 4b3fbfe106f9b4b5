"""Copies of samples on the disk of a node, shared by all processes of the node, for datasets in object stores.

The name of a sample's file is a hash, so no key of a dataset can lead out of the directory. Files
are written atomically; what a killed process leaves behind is removed, and what a power cut damages is noticed by
the digests of the sample and fetched anew. The cache keeps a running count of its bytes in a file that processes
lock; when the count passes the limit, the files that were unused for longest go. A disk that is full, or fails in
any other way, switches the cache off for this process with one warning: a cache is never a reason to stop.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shards.atomic import TEMPORARY, write_bytes
from training.config import Cache

_LOG = logging.getLogger(__name__)
_COUNT = "bytes.count"
_KEEP = 0.9
"""Share of the limit that eviction leaves, so that it is rare."""
_STALE_S = 600.0
"""A temporary file that was not touched for so long belongs to no living process."""
_SUFFIX = ".sample"


class SampleCache:
    """A cache in a directory; several processes and threads may share it."""

    def __init__(self, config: Cache) -> None:
        self._folder = config.folder
        self._limit = int(config.max_gb * 1e9)
        self._on = True
        self._switching = threading.Lock()
        with self._or_off("opened"):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._counted() as count:
                count.set(self._evict(self._limit))

    @property
    def on(self) -> bool:
        """Whether the cache is in use; False after its disk failed."""
        return self._on

    def get(self, name: str) -> bytes | None:
        """The bytes kept under a name, not checked; None when there are none."""
        if not self._on:
            return None
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._off("read", error)
            return None
        return data

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Keep bytes under a name, when there is room for them at all."""
        if not self._on or len(data) > self._limit * _KEEP:
            return
        with self._or_off("written"):
            # Counted first: a process that dies in between leaves a count too high. Files that others are writing
            # while this one counts anew are missed until the next time.
            with self._counted() as count:
                total = count.bytes + len(data)
                if total > self._limit:
                    total = self._evict(int(self._limit * _KEEP) - len(data)) + len(data)
                count.set(total)
            write_bytes(self._path(name), data, durable=False)

    def drop(self, name: str) -> None:
        """Forget what is kept under a name."""
        with self._or_off("cleaned"):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}{_SUFFIX}"

    def _evict(self, keep: int) -> int:
        """Remove what killed processes left, then the samples unused for longest until `keep` bytes are left.

        Returns:
            The bytes that are left.
        """
        entries = []
        stale = time.time() - _STALE_S
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            # Another process may remove it in between: then it is gone, as was wanted.
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == _SUFFIX:
                    entries.append((status.st_mtime_ns, status.st_size, path))
                elif TEMPORARY.match(path.name) and status.st_mtime < stale:
                    path.unlink()
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= keep:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextmanager
    def _counted(self) -> Iterator[_Count]:
        """The count of bytes, which no other process touches meanwhile."""
        descriptor = os.open(self._folder / _COUNT, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Count(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _or_off(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._off(what, error)

    def _off(self, what: str, error: OSError) -> None:
        with self._switching:
            if self._on:
                self._on = False
                _LOG.warning(
                    "the cache in %s cannot be %s and is switched off: %s. The run goes on without it",
                    self._folder,
                    what,
                    error,
                )


class _Count:
    """A number in a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        text = os.pread(descriptor, 32, 0).strip()
        # Anything else is what a power cut left: the count is then too low until it is next set.
        self.bytes = int(text) if text.isdigit() else 0

    def set(self, total: int) -> None:
        """Write the number down."""
        self.bytes = max(total, 0)
        os.pwrite(self._descriptor, b"%-31d\n" % self.bytes, 0)
