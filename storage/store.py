"""Reads files, again and again where time may heal what went wrong.

One layer decides about all tries, of folders and of object stores: a server's error, a reset, a stall and a body
that comes short are the same to it. Waits grow between tries until `retry_s` is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.backends import Backend, endpoint_hint, open_backend
from storage.errors import NoSuchFile, Stopped, StorageError
from storage.heartbeat import beat_for_retry
from storage.retryable import Transient, classified, reason_of
from storage.urls import check_url, credentials_of

RETRY_S = 300.0
"""How long a file is tried, when nothing else is said."""
FIRST_S = 20.0
"""How long the first request is tried: a wrong URL, or credentials that are not there, are likelier then."""
CHUNK = 4 * 2**20
"""Large files are read in ranges of so many bytes, each with its own retries, side by side."""
PARALLEL = 16
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
_SILENT_S = 5.0
"""Faults that pass sooner are not worth a line, and lines come no closer to each other."""

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """The files below a root, to read.

    Args:
        root: a directory, or a URL such as s3://bucket/prefix.
        retry_s: how long a read is tried.

    Raises:
        UrlError: the root is no URL that can be read, or holds a secret.
        StorageError: it cannot be opened.
    """

    def __init__(self, root: str, retry_s: float = RETRY_S) -> None:
        check_url(root)
        self.root = root.rstrip("/") or root
        self.retry_s = retry_s
        self._backend = self._open()
        self._quiet_until = 0.0
        self._reached = False

    def range(
        self, path: str, offset: int, length: int, stopped: threading.Event | None = None
    ) -> bytes | memoryview:
        """Some bytes of a file.

        Args:
            path: relative to the root.
            offset: of the first byte.
            length: how many.
            stopped: once it is set, waits between tries end, and there are no more tries.

        Raises:
            Stopped: `stopped` was set.
            NoSuchFile: there is no such file.
            StorageError: it cannot be read; the reason and the remedy are in the message.
        """

        def read() -> bytes | memoryview:
            # A try may take a minute, for which nobody waits any more.
            if stopped is not None and stopped.is_set():
                raise Stopped(f"{path} is not wanted any more")
            data = self._backend.range(path, offset, length)
            if len(data) != length:
                raise Transient(f"{len(data):,} bytes came instead of {length:,}")
            return data

        return self._retried(path, read, stopped=stopped)

    def whole(self, path: str, stopped: threading.Event | None = None) -> bytes:
        """A small file as a whole.

        Args:
            path: relative to the root.
            stopped: once it is set, waits between tries end, and there are no more tries.

        Raises:
            NoSuchFile: there is no such file.
            StorageError: it cannot be read.
        """
        return self._retried(path, lambda: self._backend.whole(path), stopped=stopped)

    def large(self, path: str, size: int) -> bytes:
        """A large file of known size as a whole.

        Raises:
            NoSuchFile: there is no such file.
            StorageError: it cannot be read.
        """
        starts = range(0, size, CHUNK)
        with ThreadPoolExecutor(PARALLEL) as pool:
            parts = pool.map(lambda start: self.range(path, start, min(CHUNK, size - start)), starts)
            return b"".join(parts)

    def size(self, path: str) -> int | None:
        """Bytes of a file; None when it is not there.

        Raises:
            StorageError: it cannot be learned.
        """
        try:
            return self._retried(path, lambda: self._backend.size(path))
        except NoSuchFile:
            return None

    def sizes(self, folder: str, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of those of some files in a folder that are there.

        One listing, or one request a file where the server has no listings or refuses them.
        """
        from obstore.exceptions import NotSupportedError, PermissionDeniedError

        wanted = set(paths)
        if self._backend.lists:
            try:
                listed = self._retried(
                    f"{folder}/",
                    lambda: {entry.path: entry.size for entry in self._backend.entries(folder)},
                    passing=(NotSupportedError, PermissionDeniedError),
                )
                return {path: size for path, size in listed.items() if path in wanted}
            except (NotSupportedError, PermissionDeniedError):
                pass
        with ThreadPoolExecutor(PARALLEL) as pool:
            sizes = zip(sorted(wanted), pool.map(self.size, sorted(wanted)), strict=True)
            return {path: size for path, size in sizes if size is not None}

    def _open(self) -> Backend:
        from obstore.exceptions import BaseError

        try:
            return open_backend(self.root)
        except NotADirectoryError:
            raise NoSuchFile(
                f"{self.root} is not a directory. Check the path, and that this machine sees it", self.root
            ) from None
        except (BaseError, ValueError) as error:
            raise StorageError(
                f"{self.root} cannot be opened: {reason_of(error)}. Check the URL and the environment "
                f"({credentials_of(self.root)})",
                self.root,
            ) from None

    def _retried(
        self,
        path: str,
        read: Callable[[], T],
        passing: tuple[type[Exception], ...] = (),
        stopped: threading.Event | None = None,
        done: str = "read",
    ) -> T:
        """Call `read`, again and again while its failures are of a kind that passes."""
        try:
            found = self._once(path, read, passing)
        except Transient:
            pass
        except Exception:
            self._reached = True
            raise
        else:
            self._reached = True
            return found
        retry_s = self.retry_s if self._reached else min(self.retry_s, FIRST_S)
        # Only a read that failed pays for the machinery of trying again.
        from tenacity import (
            RetryCallState,
            RetryError,
            Retrying,
            retry_if_exception_type,
            sleep_using_event,
            stop_after_delay,
            stop_when_event_set,
            wait_random_exponential,
        )

        def tell(state: RetryCallState) -> None:
            beat_for_retry()
            now, tried_s = time.monotonic(), state.seconds_since_start or 0.0
            if tried_s < _SILENT_S or now < self._quiet_until or state.outcome is None:
                return
            self._quiet_until = now + _SILENT_S
            reason = state.outcome.exception()
            _LOG.warning(
                f"{self.root}/{path} could not be {done} for {tried_s:.0f} s: {reason}. It is tried for "
                f"{retry_s:.0f} s"
            )

        stopped = stopped or threading.Event()
        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_delay(retry_s) | stop_when_event_set(stopped),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            sleep=sleep_using_event(stopped),
            before_sleep=tell,
        )
        try:
            mended: T = retrying(self._once, path, read, passing)
            self._reached = True
            return mended
        except RetryError as error:
            reason = error.last_attempt.exception()
            raise StorageError(
                f"{self.root}/{path} could not be {done} for {retry_s:.0f} s: {reason}. Check that the "
                f"storage is reachable from this machine and healthy{endpoint_hint(self.root)}, then run the same "
                "command again",
                f"{self.root}/{path}",
            ) from error

    def _once(self, path: str, read: Callable[[], T], passing: tuple[type[Exception], ...]) -> T:
        from obstore.exceptions import BaseError

        try:
            return read()
        except passing:
            raise
        except StorageError:
            raise
        except (BaseError, OSError) as error:
            raise classified(self.root, path, error) from None
