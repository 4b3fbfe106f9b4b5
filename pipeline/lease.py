"""One build at a time in an object store, which has no locks: a lease that its holder renews.

    <output>/.staging/lock-owner   names the process; changes every few seconds while its build runs

A lease that does not change for a while belongs to a build that was killed, and is taken over. No clock is
compared with another machine's.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import BuildError
from shards.canonical import compact_json
from storage.errors import NoSuchFile, StorageError
from storage.path import ObjectPath

RENEW_S = 10.0
DEAD_AFTER_S = 45.0
"""A lease that did not change for so long is given up; longer than a renewal that has to be tried again."""
LOOK_S = 1.0


class Lease:
    """A lease that this process holds.

    Args:
        path: of the object.
        version: of the object as this process wrote it.
        token: tells this holder from others.
    """

    def __init__(self, path: ObjectPath, version: str, token: str) -> None:
        self._path, self._version, self._token = path, version, token
        self._ended = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            BuildError: another build has taken it over.
        """
        if self._lost:
            raise BuildError(self._lost)

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(StorageError):
                self._path.unlink()

    def _renew(self) -> None:
        number = 0
        while not self._ended.wait(RENEW_S):
            number += 1
            try:
                data = _content(self._token, number)
                if self._path.bucket.replace(self._path.key, data, self._version):
                    self._version = self._path.bucket.version(self._path.key) or ""
                else:
                    self._lost = f"another build has taken over {self._path.parent.parent}. End one of them."
                    return
            except StorageError:
                continue  # the next renewal may come through; if not, another build may take over


@contextmanager
def lease(output: ObjectPath, folder: str, notify: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold the output for the time of the `with` block.

    Args:
        output: of the build.
        folder: name of the staging area.
        notify: called with a message when another's lease is waited for.

    Yields:
        A function that raises BuildError once another build has taken over.

    Raises:
        BuildError: another build holds it, or it cannot be written to.
    """
    path = output / folder / "lock-owner"
    try:
        held = _taken(path, output, notify)
    except StorageError as error:
        raise BuildError(f"output {output} cannot be used: {error}") from error
    try:
        yield held.check
    finally:
        held.release()


def _taken(path: ObjectPath, output: ObjectPath, notify: Callable[[str], None]) -> Lease:
    token = secrets.token_hex(8)
    data = _content(token, 0)
    bucket = path.bucket
    if not bucket.create(path.key, data):
        version = bucket.version(path.key)
        if version is not None:
            notify(
                f"{_owner(path)} holds {output}. Waiting {DEAD_AFTER_S:.0f} s to see whether it still runs"
            )
            _wait(path, version, output)
        taken = bucket.create(path.key, data) if version is None else bucket.replace(path.key, data, version)
        if not taken:
            raise BuildError(_busy(path, output))
    return Lease(path, bucket.version(path.key) or "", token)


def _wait(path: ObjectPath, version: str, output: ObjectPath) -> None:
    end = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        if path.bucket.version(path.key) != version:
            raise BuildError(_busy(path, output))


def _busy(path: ObjectPath, output: ObjectPath) -> str:
    return f"Another build is writing to {output}: {_owner(path)}. Wait for it, or end it."


def _owner(path: ObjectPath) -> str:
    try:
        return path.read_text(errors="replace")[:200].partition('"owner":"')[2].partition('"')[0]
    except NoSuchFile:
        return "a build that has just ended"


def _content(token: str, number: int) -> bytes:
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    return compact_json({"owner": owner, "renewed": number, "token": token})
