"""Temporary files of this process, in a directory that the next process removes if this one is killed.

Large arrays are mapped files here: the system writes them out where memory runs short.

<TMPDIR>/mfhq-scratch-<random>/lock   locked by the system for as long as its process runs
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

PREFIX = "mfhq-scratch-"
_LOCK = "lock"


def scratch_folder() -> Path:
    """The directory for this process's temporary files.

    Raises:
        OSError: the system's temporary directory cannot be written to.
    """
    return _folder(tempfile.gettempdir(), os.getpid())


@lru_cache(maxsize=4)
def _folder(parent: str, process: int) -> Path:
    del process  # a forked process has a directory of its own
    remove_abandoned(Path(parent))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    file = (folder / _LOCK).open("w")  # held until the process ends
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(file.close)
    return folder


def mapped_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros in a temporary file that is gone with the array.

    Raises:
        OSError: the disk of the temporary directory has no room for it.
    """
    import numpy as np  # only here: `mfhq status` and `mfhq plan` start without it

    length = prod(shape) * np.dtype(dtype).itemsize
    if not length:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch_folder()) as file:
        # Without room, writing to a mapped file ends the process.
        os.posix_fallocate(file.fileno(), 0, length)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove what killed processes have left in a temporary directory; returns what was removed."""
    removed = []
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed
