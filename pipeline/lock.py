"""One build at a time in an output directory: two would overwrite each other's files.

The lock is inside, because the output may be a mount point with a parent that cannot be written to:

    <output>/.staging/lock         locked by the system, which releases it when the process ends for any reason;
                                   names the process
    <output>/.staging/lock-owner   on file systems without locks: exists while a build runs, and names its process

Only its own build removes a `lock-owner`: a process on another host cannot be checked from here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import BuildError
from pipeline.layout import STAGING as FOLDER
from pipeline.lease import lease
from storage.path import AnyPath, ObjectPath

LOCK = "lock"
AGAIN_S = 0.3
OWNER = "lock-owner"
UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of a file system that has no locks."""


@contextmanager
def output_lock(
    output: AnyPath, notify: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[], None]]:
    """Hold the output for the time of the `with` block; a directory is made when missing.

    Args:
        output: a directory, or a place in an object store.
        notify: called with a message when the file system has no locks, or another's is waited for.

    Yields:
        A function that raises BuildError once another build has taken over.

    Raises:
        BuildError: another build holds it, or it cannot be written to.
    """
    if isinstance(output, ObjectPath):
        with lease(output, FOLDER, notify) as check:
            yield check
        return
    folder = output / FOLDER
    with ExitStack() as held:
        try:
            for made in (output, folder):
                _make(made, held)
            _hold(folder, output, held, notify)
        except OSError as error:
            raise BuildError(
                f"output {output} cannot be used: {error.filename or folder}: {error.strerror}. Give a directory "
                "that can be written to."
            ) from error
        yield lambda: None


def _make(directory: Path, held: ExitStack) -> None:
    """Make a directory; remove it at the end if it is still empty, so that a failed start leaves no directory."""
    missing = [each for each in (directory, *directory.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        held.callback(_remove_if_empty, each)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _hold(folder: Path, output: Path, held: ExitStack, notify: Callable[[str], None]) -> None:
    path = folder / LOCK
    file = held.enter_context(path.open("a"))
    try:
        _lock(file)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise BuildError(_busy(output, path)) from error
        if error.errno not in UNSUPPORTED:
            raise OSError(error.errno, error.strerror, str(path)) from error
        path.unlink(missing_ok=True)
        _own(folder / OWNER, output, held)
        notify(
            f"{output} is on a file system without locks ({error.strerror}). {folder / OWNER} marks it as in use; "
            "remove that file if this build is killed."
        )
        return
    # A build that has just ended may have removed this file between opening and locking it.
    if not _is_still(path, file):
        raise BuildError(_busy(output, path))
    file.truncate(0)
    file.write(_process())
    file.flush()
    held.callback(path.unlink, missing_ok=True)
    # Left by a build that was killed when the file system had no locks, or running where it has none.
    if (folder / OWNER).exists():
        raise BuildError(_owned(folder / OWNER, output))


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _own(path: Path, output: Path, held: ExitStack) -> None:
    try:
        # O_EXCL is atomic where the file system has no locks.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:
        raise BuildError(_owned(path, output)) from error
    held.callback(path.unlink, missing_ok=True)
    with os.fdopen(descriptor, "w") as file:
        file.write(_process())


def _lock(file: IO[str]) -> None:
    """Lock a file; `mfhq status` holds such a lock for a moment, so it is tried again once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(AGAIN_S)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(output: Path) -> bool:
    """Whether a build holds the lock of an output directory, on this machine or another one.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    try:
        with (output / FOLDER / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _busy(output: Path, lock: Path) -> str:
    try:
        owner = lock.read_text(errors="replace")[:200]
    except OSError:
        owner = ""
    return f"Another build is writing to {output}{f': {owner}' if owner else ''}. Wait for it, or end it."


def _owned(path: Path, output: Path) -> str:
    try:
        owner = path.read_text(errors="replace")[:200] or "an unknown process"
    except OSError:
        owner = "an unknown process"
    return (
        f"Another build is writing to {output}: {owner}. Wait for it, or end it. If it no longer runs, remove "
        f"{path}."
    )
