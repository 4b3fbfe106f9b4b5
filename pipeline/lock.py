"""One build at a time in an output directory: two would overwrite each other's files.

The lock is inside, because the output may be a mount point with a parent that cannot be written to:

    <output>/.staging/lock         locked by the system, which releases it when the process ends for any reason
    <output>/.staging/lock-owner   on file systems without locks: exists while a build runs, and names its process

Only its own build removes a `lock-owner`: a process on another host cannot be checked from here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import BuildError
from pipeline.lease import lease
from pipeline.staging import FOLDER
from storage.path import AnyPath, ObjectPath

LOCK = "lock"
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
    if not directory.is_dir():
        directory.mkdir(parents=True)
        held.callback(_remove_if_empty, directory)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _hold(folder: Path, output: Path, held: ExitStack, notify: Callable[[str], None]) -> None:
    path = folder / LOCK
    file = held.enter_context(path.open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise BuildError(_busy(output)) from error
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
        raise BuildError(_busy(output))
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
        file.write(f"process {os.getpid()} on {socket.gethostname()}")


def _busy(output: Path) -> str:
    return f"Another build is writing to {output}. Wait for it, or end it."


def _owned(path: Path, output: Path) -> str:
    try:
        owner = path.read_text(errors="replace")[:200] or "an unknown process"
    except OSError:
        owner = "an unknown process"
    return (
        f"Another build is writing to {output}: {owner}. Wait for it, or end it. If it no longer runs, remove "
        f"{path}."
    )
