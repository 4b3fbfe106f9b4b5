"""User-facing errors for failed downloads from the Hugging Face hub.

A download passes through several libraries (the hub's, its HTTP client, the operating system), whose errors share
no base class.
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
_URL = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s?'\"]*)(?:\?[^\s'\"]*)?")
_REASON_CHARACTERS = 200


@contextmanager
def hub_errors(message: Callable[[str], str]) -> Iterator[None]:
    """Turn every error of a download into a user-facing one.

    Args:
        message: of the error, given the reason.

    Raises:
        OutOfSpace: the disk or quota of the hub's cache is full.
        TrainingError: anything else.
    """
    from huggingface_hub import constants

    try:
        yield
    except TrainingError:
        raise
    except Exception as error:  # there is no common base class
        if code := _full_disk(error):
            cache = Path(constants.HF_HUB_CACHE)
            there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
            raise OutOfSpace(cache, shutil.disk_usage(there).free, code) from error
        raise TrainingError(message(reason_of(error))) from error


def reason_of(error: BaseException) -> str:
    """Type and first line of an error, with the secrets of its URLs removed."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    # It only reports that the file is not in the cache; its cause is the error of the hub.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), "")
    # URLs of downloads are signed, and those of proxies may contain a password.
    line = _URL.sub(r"\1\2", line)[:_REASON_CHARACTERS].rstrip(" .:")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _full_disk(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.errno
        # The hub's native transport reports it only in the text of its errors.
        for code in _FULL:
            if os.strerror(code) in str(error):
                return code
        error = error.__cause__ or error.__context__
    return None
