"""One build at a time in an output folder: two would tear each other's files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import BuildError

SUFFIX = ".lock"


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Hold the output folder for the time of the `with` block.

    The lock is a file beside the folder. The system lets go of it when the process ends, however it ends; where
    a file system knows no locks, nothing is held.

    Raises:
        BuildError: another build holds it, or the folder's parent cannot be written to.
    """
    path = output.with_name(output.name + SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise BuildError(
            f"output {output} cannot be used: {error.filename}: {error.strerror}; give a folder that can be "
            "written to"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A build that has just ended may have taken this file away between the two lines above.
            held = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            held = False
        if not held:
            raise BuildError(f"another build is writing to {output}; wait for it, or end it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
