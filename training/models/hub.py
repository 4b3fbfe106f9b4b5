"""What goes wrong when the Hugging Face hub is asked for files, in words.

A download passes through several libraries, and each has errors of its own that share no base class: those of the
hub, of its HTTP client, of the operating system.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.atomic import OutOfSpace
from training.errors import TrainingError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADDRESS = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?'\"]*)(?:\?[^\s'\"]*)?")
_REASON_CHARACTERS = 200


@contextmanager
def asking_the_hub(refusal: Callable[[str], str]) -> Iterator[None]:
    """Whatever keeps the hub's files from being fetched ends in words.

    Args:
        refusal: what to say, given the reason in a few words.

    Raises:
        OutOfSpace: the disk or the quota is full where the hub's files are kept.
        TrainingError: anything else.
    """
    from huggingface_hub import constants

    try:
        yield
    except TrainingError:
        raise
    except Exception as error:  # see above: there is no base class to name
        if code := _full_disk(error):
            cache = Path(constants.HF_HUB_CACHE)
            there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
            raise OutOfSpace(cache, shutil.disk_usage(there).free, code) from error
        raise TrainingError(refusal(reason_of(error))) from error


def reason_of(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, without what addresses may keep secret."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    # It says no more than that the file is not on this disk either; its cause says why the hub was of no help.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), "")
    # Addresses of downloads are signed, and those of proxies may hold a password.
    line = _ADDRESS.sub(r"\1\2", line)[:_REASON_CHARACTERS].rstrip(" .:")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _full_disk(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.errno
        # The hub's own transport, which is not written in Python, has nothing but words for it.
        for code in _FULL:
            if os.strerror(code) in str(error):
                return code
        error = error.__cause__ or error.__context__
    return None
