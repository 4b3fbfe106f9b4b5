"""The errors of storage; their messages name the file and what to do, and hold no secrets."""

from __future__ import annotations

import errno


class UrlError(ValueError):
    """A URL that nothing here can read, or that holds a secret; it is repeated only where it holds none."""


class StorageError(OSError):
    """A file cannot be read or written, and another try at once would not help.

    Args:
        message: with the remedy.
        url: of the file.
        code: of the system's errors, the one that is nearest.
    """

    def __init__(self, message: str, url: str, code: int = errno.EIO) -> None:
        super().__init__(code, message, url)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str, int]]:
        return type(self), (self.message, str(self.filename), self.errno or errno.EIO)


class NoSuchFile(StorageError, FileNotFoundError):  # noqa: N818 - names the event
    """There is no such file.

    Args:
        message: names it.
        url: of the file.
        code: not used.
    """

    def __init__(self, message: str, url: str, code: int = errno.ENOENT) -> None:
        super().__init__(message, url, code)


class Stopped(Exception):  # noqa: N818 - names what happened, which is no error
    """Reading was given up, because the bytes are not wanted any more."""


def is_of_storage(error: Exception) -> bool:
    """Whether an error is that of an object store or of a full disk, and tells nothing of the file."""
    if isinstance(error, NoSuchFile):
        return False
    return isinstance(error, StorageError) or (
        isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    )
