"""Reads the files of a data set from a folder or an object store, and knows which errors are worth another try.

obstore speaks to folders, S3, Google Cloud Storage, Azure and plain web servers alike. Its own retries are
switched off: they see status codes, but not a body that comes short, so one layer here decides about everything.
Errors that time may heal (5xx, resets, stalls, short bodies) are tried again, with growing waits, until `retry_s`
is over; what time does not heal (no such file, credentials refused) ends at once. Messages name the file and what
to do, and never quote a server's answer beyond its error code: it may repeat what was sent.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from settings.section import ConfigError
from shards.manifest import DataSetError
from training.errors import TrainingError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https", "http", "file")
CONNECT_S = 5.0
STALL_S = 10.0
"""A connection on which nothing comes for so long is given up."""
REQUEST_S = 60.0
"""A request that takes longer as a whole is given up."""
CHUNK = 4 * 2**20
"""Large files are read in ranges of so many bytes, each with its own retries, side by side."""
PARALLEL = 16
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_WORTH_ANOTHER_TRY = {408, 425, 429}
_METADATA_SERVICES = ("169.254.", "metadata.google", "token request")

T = TypeVar("T")


class Transient(Exception):  # noqa: N818 - says what kind of failure it is
    """A read failed in a way that another try may mend; the message is the reason."""


class Store:
    """The files below a root: a folder, or the address of one."""

    def __init__(self, root: str, retry_s: float) -> None:
        check_root(root)
        self.root = root.rstrip("/") or root
        self.retry_s = retry_s
        self._stopped = threading.Event()
        self._store, self._lists = _connect(self.root)

    def close(self) -> None:
        """End all waits between tries; reads that fail from now on are not tried again."""
        self._stopped.set()

    def range(self, path: str, offset: int, length: int) -> memoryview:
        """Some bytes of a file.

        Raises:
            DataSetError: there is no such file.
            TrainingError: it cannot be read; the reason and the remedy are in the message.
        """
        import obstore

        def read() -> memoryview:
            data = memoryview(obstore.get_range(self._store, path, start=offset, length=length))
            if len(data) != length:
                raise Transient(f"{len(data):,} bytes came instead of {length:,}")
            return data

        return self._patiently(path, read)

    def whole(self, path: str) -> bytes:
        """A file as a whole.

        Raises:
            DataSetError: there is no such file.
            TrainingError: it cannot be read.
        """
        size = self.size(path)
        starts = range(0, size, CHUNK)
        with ThreadPoolExecutor(PARALLEL) as pool:
            parts = pool.map(lambda start: self.range(path, start, min(CHUNK, size - start)), starts)
            return b"".join(parts)

    def size(self, path: str) -> int:
        """Bytes of a file.

        Raises:
            DataSetError: there is no such file.
            TrainingError: it cannot be asked for.
        """
        import obstore

        return int(self._patiently(path, lambda: obstore.head(self._store, path)["size"]))

    def sizes(self, folder: str, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of those of some files in a folder that are there.

        One listing, or one request a file where the server has no listings or refuses them.
        """
        import obstore
        from obstore.exceptions import NotSupportedError, PermissionDeniedError

        def listing() -> dict[str, int]:
            found = obstore.list(self._store, prefix=folder).collect()
            return {str(entry["path"]): int(entry["size"]) for entry in found}

        wanted = set(paths)
        if self._lists:
            try:
                listed = self._patiently(
                    f"{folder}/", listing, passing=(NotSupportedError, PermissionDeniedError)
                )
                return {path: size for path, size in listed.items() if path in wanted}
            except (NotSupportedError, PermissionDeniedError):
                pass
        with ThreadPoolExecutor(PARALLEL) as pool:
            sizes = zip(sorted(wanted), pool.map(self._size_or_none, sorted(wanted)), strict=True)
            return {path: size for path, size in sizes if size is not None}

    def _size_or_none(self, path: str) -> int | None:
        try:
            return self.size(path)
        except DataSetError:
            return None

    def _patiently(self, path: str, read: Callable[[], T], passing: tuple[type[Exception], ...] = ()) -> T:
        """Call `read`, again and again while its failures are of a kind that passes."""
        try:
            return self._once(path, read, passing)
        except Transient as error:
            first = error
        # Only a read that failed pays for the machinery of trying again.
        from tenacity import (
            RetryError,
            Retrying,
            retry_if_exception_type,
            sleep_using_event,
            stop_after_delay,
            stop_when_event_set,
            wait_random_exponential,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_delay(self.retry_s) | stop_when_event_set(self._stopped),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            sleep=sleep_using_event(self._stopped),
        )
        try:
            mended: T = retrying(self._once, path, read, passing)
            return mended
        except RetryError as error:
            reason = error.last_attempt.exception() or first
            raise TrainingError(
                f"{self.root}/{path} could not be read for {self.retry_s:.0f} s: {reason}. Check that the storage "
                "is reachable from this machine and healthy, then run the same command again (run.retry_s sets "
                "how long to keep trying)"
            ) from error

    def _once(self, path: str, read: Callable[[], T], passing: tuple[type[Exception], ...]) -> T:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            return read()
        except passing:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise TrainingError(
                    f"{self.root}: there is no such bucket. Check data.root, and AWS_ENDPOINT_URL if it is set"
                ) from None
            raise DataSetError(f"{self.root} has no {path}") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise TrainingError(
                f"{self.root}/{path}: access is refused ({_reason(error)}). Check the credentials in the "
                f"environment ({_credentials(self.root)}) and that they may read this place"
            ) from None
        except (BaseError, OSError) as error:
            raise self._judged(path, error) from None

    def _judged(self, path: str, error: Exception) -> Exception:
        text, reason = str(error), _reason(error)
        status = _STATUS.search(text)
        if any(service in text for service in _METADATA_SERVICES):
            return TrainingError(
                f"{self.root}: no credentials were found. Set {_credentials(self.root)} in the environment"
            )
        if "redirect" in text.lower():
            return TrainingError(
                f"{self.root}/{path}: the server sends us elsewhere ({reason}). Check AWS_REGION and "
                "AWS_ENDPOINT_URL"
            )
        if status and 400 <= int(status[1]) < 500 and int(status[1]) not in _WORTH_ANOTHER_TRY:
            return TrainingError(
                f"{self.root}/{path}: the server refuses the request ({reason}). Check data.root and the "
                f"credentials in the environment ({_credentials(self.root)})"
            )
        return Transient(reason)


def check_root(root: str) -> None:
    """Refuse addresses that hold secrets or that nothing here can read.

    Raises:
        ConfigError: without repeating the address, where it may hold a secret.
    """
    if "://" not in root:
        return
    try:
        parts = urlsplit(root)
    except ValueError:
        raise ConfigError("data.root is no valid address") from None
    container = parts.scheme in {"abfs", "abfss"} and parts.password is None
    if parts.query or parts.fragment or ("@" in parts.netloc and not container):
        raise ConfigError(
            "data.root: an address with a user name, a password or a query in it is refused, because the "
            f"configuration is stored and shown. Put the credentials into the environment ({_credentials(root)})"
        )
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"data.root={root}: addresses begin with {', '.join(f'{name}://' for name in SCHEMES)}"
        )


def _connect(root: str) -> tuple[Any, bool]:
    """The object store behind a root, and whether it can list its files."""
    from obstore.exceptions import BaseError
    from obstore.store import HTTPStore, LocalStore, from_url

    if "://" not in root or root.startswith("file://"):
        folder = Path(urlsplit(root).path if "://" in root else root).expanduser()
        if not folder.is_dir():
            raise DataSetError(f"{root} is no folder. Check data.root, and that this machine sees it")
        return LocalStore(folder.resolve()), True
    options = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=STALL_S),
        "timeout": timedelta(seconds=REQUEST_S),
        "allow_http": root.startswith("http://") or any(map(_is_http, _ENDPOINTS)),
    }
    try:
        store = from_url(root, client_options=options, retry_config={"max_retries": 0})
    except (BaseError, ValueError) as error:
        raise TrainingError(
            f"{root} cannot be opened: {_reason(error)}. Check data.root and the environment "
            f"({_credentials(root)})"
        ) from None
    return store, not isinstance(store, HTTPStore)


_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)


def _is_http(variable: str) -> bool:
    return os.environ.get(variable, "").startswith("http://")


def _credentials(root: str) -> str:
    """The variables that hold the credentials of a kind of storage."""
    scheme = root.partition("://")[0]
    if scheme in {"s3", "s3a"}:
        return "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL"
    if scheme == "gs":
        return "GOOGLE_APPLICATION_CREDENTIALS"
    if scheme in {"az", "azure", "abfs", "abfss", "adl"}:
        return "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY"
    return "a web server's folder must be readable without credentials"


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without addresses, which may be signed, and without the server's answer."""
    text = str(error)
    if (status := _STATUS.search(text)) is not None:
        code = _CODE.search(text)
        return f"HTTP {status[1]}" + (f", {code[1]}" if code else "")
    line = text.split("\n", 1)[0]
    line = re.sub(r"Error performing [A-Z]+ \S+ in \S+ - ", "", line)
    line = re.sub(r"\S+://\S+", "<address>", line)
    for name, words in (("kind: Connect", "no connection"), ("kind: Timeout", "nothing came in time")):
        if name in text:
            return f"{line} ({words})"
    return line
