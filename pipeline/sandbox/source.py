"""Opens a video without trusting its kind, and separates a file's errors from those of its storage."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox.decoding import LOST_SHARE
from pipeline.time_limit import within
from shards.schema import Reason

STORAGE_TIMEOUT_S = 120.0
CLOSE_S = 5.0
_BLOCK = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
}


class Source:
    """An open regular file.

    Args:
        path: for messages.
        descriptor: open for reading; closed by `close`.
        timeout_s: seconds that the storage may take for one answer.
    """

    def __init__(self, path: Path, descriptor: int, timeout_s: float = STORAGE_TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._state = _state(os.fstat(descriptor))
        self.descriptor = descriptor

    def sha256(self) -> str:
        """Sha256 of the content.

        Raises:
            MachineFault: the storage is lost.
        """
        digest = hashlib.sha256()
        for block in self._blocks():
            digest.update(block)
        return digest.hexdigest()

    def read(self) -> bytes:
        """The content.

        Raises:
            MachineFault: the storage is lost.
        """
        return b"".join(self._blocks())

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._state[0]

    def check(self) -> Rejection | None:
        """Read the file once more, to find out whether the file or the storage is at fault.

        A decoder takes a read error for the end of the file, so its messages cannot show the difference.

        Returns:
            A rejection when the file is no longer the one that was opened.

        Raises:
            MachineFault: the storage is lost.
        """
        for _ in self._blocks():
            pass
        state = _state(os.fstat(self.descriptor))
        if state != self._state:
            return Rejection(Reason.UNREADABLE, "the file changed while it was read")
        return None

    def _blocks(self) -> Iterator[bytes]:
        position = 0
        try:
            while block := within(
                self._timeout_s, str(self.path), partial(os.pread, self.descriptor, _BLOCK, position)
            ):
                position += len(block)
                yield block
        except OSError as error:
            raise _unreachable(self.path, error) from error

    def close(self) -> None:
        """Close the file. Where the storage does not answer, that is left behind as well."""
        with suppress(MachineFault):
            within(min(CLOSE_S, self._timeout_s), str(self.path), partial(os.close, self.descriptor))


def open_source(path: Path, timeout_s: float = STORAGE_TIMEOUT_S) -> Source | Rejection:
    """Open a file for decoding; a pipe, a device or a directory of that name is a rejection and blocks nothing.

    Args:
        path: of the file.
        timeout_s: seconds that the storage may take for one answer.

    Raises:
        MachineFault: the storage or the directory of the file is lost, or it does not answer.
    """
    return within(timeout_s, str(path), partial(_open_source, path, timeout_s))


def _open_source(path: Path, timeout_s: float) -> Source | Rejection:
    try:
        # Without opening the content: opening a pipe waits for a writer, opening a device may set it going.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            kind = stat.S_IFMT(found.st_mode)
            if kind != stat.S_IFREG:
                return Rejection(
                    Reason.NOT_A_REGULAR_FILE, f"{_KINDS.get(kind, 'something else')}, not a file"
                )
            if found.st_size == 0:
                return Rejection(Reason.EMPTY_FILE, "0 bytes")
            descriptor = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(handle)
        return Source(path, descriptor, timeout_s)
    except OSError as error:
        if error.errno in LOST_SHARE or not _has_files(path.parent):
            raise _unreachable(path, error) from error
        return Rejection(Reason.INACCESSIBLE, error.strerror)


def _has_files(folder: Path) -> bool:
    """Whether a directory is there with anything in it; a share that is not mounted leaves an empty one."""
    try:
        return next(folder.iterdir(), None) is not None
    except OSError:
        return False


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _unreachable(path: Path, error: OSError) -> MachineFault:
    return MachineFault(
        f"{path} cannot be read ({error.strerror}). Check that the source is mounted on every node, then run the "
        "same command again; it continues"
    )
