"""Atomic writes: a file appears under its name complete, or not at all.

A file is written under a temporary name in its own folder, flushed to the disk and renamed. A process that
dies in between leaves the temporary file, which `remove_temporaries` recognises by its name, but no incomplete
file under its final name. An object of a store is written to the system's temporary directory and uploaded.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from storage.path import AnyPath, ObjectPath, open_upload

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = re.compile(r"^\..+\.tmp-[0-9a-f]{16}$")
"""Names of temporary files: `.<final name>.tmp-<16 hexadecimal digits>`."""

PARQUET_SETTINGS: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "write_statistics": True,
    "write_page_checksum": True,
}
"""Fixed, so that the same rows give the same bytes when a library's defaults change."""


class OutOfSpace(OSError):  # noqa: N818 - the name states the event; OSError makes it an error
    """The disk or the quota is full.

    Attributes:
        path: the file that was being written, under its final name.
        free_bytes: free space of its file system when the error was met.
    """

    def __init__(self, path: Path, free_bytes: int, code: int = errno.ENOSPC) -> None:
        what = "the disk quota is used up" if code == errno.EDQUOT else "the disk is full"
        super().__init__(
            code,
            f"cannot write {path}: {what} ({free_bytes:,} bytes free on its file system). Free space or "
            "choose another output, then run the same command again: finished work is kept",
        )
        self.path = path
        self.free_bytes = free_bytes
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[type[OutOfSpace], tuple[Path, int, int]]:
        return OutOfSpace, (self.path, self.free_bytes, self.code)


@contextmanager
def open_atomic(path: AnyPath, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open `path` for writing; it appears under its name, whole, when the block ends without an error.

    The parent folder is made when it is missing. On any error no file is left behind, and an earlier file
    under `path` is unchanged.

    Args:
        path: the final name.
        durable: whether it must be whole after a power cut as well; False does not wait for the disk.

    Raises:
        OutOfSpace: the disk or the quota is full.
        StorageError: the object store does not take it.
    """
    if isinstance(path, ObjectPath):
        with named_when_full(Path(tempfile.gettempdir())), open_upload(path) as file:
            yield file
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are readable by their owner alone, even with another umask.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and not isinstance(error, OutOfSpace):
            raise OutOfSpace(path, _free_bytes(path.parent), error.errno) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: AnyPath, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write `data` to `path` atomically; `durable` as in `open_atomic`.

    Raises:
        OutOfSpace: the disk or the quota is full.
        StorageError: the object store does not take it.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(bytes(data))
        return
    with open_atomic(path, durable=durable) as file:
        file.write(data)


def write_parquet(path: AnyPath, table: pa.Table) -> None:
    """Write a table to `path` atomically, with settings that make equal tables equal bytes.

    Raises:
        OutOfSpace: the disk or the quota is full.
    """
    import pyarrow.parquet as pq

    with open_atomic(path) as file:
        pq.write_table(table, file, **PARQUET_SETTINGS)


def remove_file(path: AnyPath) -> None:
    """Remove a file, if it exists, so that it stays removed after a power cut."""
    if isinstance(path, ObjectPath):
        path.unlink()
        return
    if path.exists() or path.is_symlink():
        path.unlink()
        sync_folder(path.parent)


def remove_files(root: AnyPath, names: list[str]) -> None:
    """Remove files below `root`, those that exist."""
    if isinstance(root, ObjectPath):
        root.bucket.delete([(root / name).key for name in names])
        return
    for name in names:
        (root / name).unlink(missing_ok=True)


def remove_temporaries(folder: AnyPath, min_age_s: float = 0.0) -> list[Path]:
    """Remove what killed processes left in `folder`, not in its sub-folders; in an object store that is nothing.

    Args:
        folder: may be missing.
        min_age_s: keep files changed less than so many seconds ago; set it when others may be writing.

    Returns:
        The removed files, sorted.
    """
    if isinstance(folder, ObjectPath) or not folder.is_dir():
        return []
    newest = time.time() - min_age_s
    stale = sorted(
        path for path in folder.iterdir() if TEMPORARY.match(path.name) and path.lstat().st_mtime <= newest
    )
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def named_when_full(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that says so.

    Raises:
        OutOfSpace: the disk or the quota of `folder` is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and not isinstance(error, OutOfSpace):
            raise OutOfSpace(folder, _free_bytes(folder), error.errno) from error
        raise


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
