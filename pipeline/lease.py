"""One build at a time in an object store, which has no locks: a lease that its holder renews.

    <output>/.staging/lock-owner   names the process; changes every few seconds while its build runs

A lease that does not change for a while belongs to a build that was killed, and is taken over. No clock is
compared with another machine's.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import BuildError
from shards.canonical import compact_json
from storage.bucket import Bucket
from storage.errors import NoSuchFile, StorageError
from storage.path import ObjectPath

RENEW_S = 10.0
TRY_S = 10.0
"""How long one renewal is tried."""
DEAD_AFTER_S = 45.0
"""A lease that did not change for so long is given up; longer than two renewals that have to be tried again."""
LOOK_S = 1.0


class Lease:
    """A lease that this process holds.

    Args:
        bucket: of the object.
        key: of the object.
        version: of the object as this process wrote it.
        token: tells this holder from others.
    """

    def __init__(self, bucket: Bucket, key: str, version: str, token: str) -> None:
        self._bucket, self._key, self._version, self._token = bucket, key, version, token
        self._ended = threading.Event()
        self._lost = ""
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            BuildError: it is not, or it could not be renewed for so long that another build may have it.
        """
        if not self._lost and time.monotonic() - self._renewed > DEAD_AFTER_S:
            self._lost = "it could not be renewed in time, and another build may have taken it over"
        if self._lost:
            raise BuildError(
                f"this build has lost its hold on {self._bucket.root}/{self._key}: {self._lost}. Run the same "
                "command again; it continues"
            )

    def release(self) -> None:
        """Give the lease back, if it is still this process's."""
        self._ended.set()
        self._thread.join(TRY_S)
        with suppress(StorageError):
            if _token(self._bucket, self._key) == self._token:
                self._bucket.delete([self._key])

    def _keep(self) -> None:
        number = 0
        while not self._ended.wait(RENEW_S) and not self._lost:
            number += 1
            try:
                self._renew(number)
            except StorageError:
                continue  # `check` counts the time
            except Exception as error:  # nothing may end this thread in silence
                self._lost = f"it could not be renewed ({type(error).__name__}: {error})"

    def _renew(self, number: int) -> None:
        version = self._bucket.replace(self._key, _content(self._token, number), self._version)
        if version is None and _token(self._bucket, self._key) == self._token:
            # An earlier renewal came through although its answer did not.
            self._version = self._bucket.version(self._key) or ""
            version = self._bucket.replace(self._key, _content(self._token, -number), self._version)
        if version is None:
            self._lost = "another build has taken it over"
        else:
            self._version, self._renewed = version, time.monotonic()


@contextmanager
def lease(output: ObjectPath, folder: str, notify: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold the output for the time of the `with` block.

    Args:
        output: of the build.
        folder: name of the staging area.
        notify: called with a message when another's lease is waited for.

    Yields:
        A function that raises BuildError once the lease is lost.

    Raises:
        BuildError: another build holds it, or it cannot be written to.
    """
    try:
        held = _taken(output / folder / "lock-owner", output, notify)
    except StorageError as error:
        raise BuildError(f"output {output} cannot be used: {error}") from error
    try:
        yield held.check
    finally:
        held.release()


def _taken(path: ObjectPath, output: ObjectPath, notify: Callable[[str], None]) -> Lease:
    bucket, key = Bucket(path.root, TRY_S), path.key
    token = secrets.token_hex(8)
    data = _content(token, 0)
    version = bucket.create(key, data)
    if version is None:
        found = bucket.version(key)
        if found is not None:
            notify(
                f"{owner_of(path)} holds {output}. Waiting {DEAD_AFTER_S:.0f} s to see whether it still runs"
            )
            found = _unchanged(bucket, path, found, output)
        version = bucket.create(key, data) if found is None else bucket.replace(key, data, found)
    if version is None:
        raise BuildError(_busy(path, output))
    return Lease(bucket, key, version, token)


def _unchanged(bucket: Bucket, path: ObjectPath, version: str, output: ObjectPath) -> str | None:
    """The version of a lease that was not renewed; None when it was given back."""
    end = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        found = bucket.version(path.key)
        if found is None:
            return None
        if found != version:
            raise BuildError(_busy(path, output))
    return version


def _busy(path: ObjectPath, output: ObjectPath) -> str:
    return f"Another build is writing to {output}: {owner_of(path)}. Wait for it, or end it."


def owner_of(path: ObjectPath) -> str:
    """The process that a lease names."""
    try:
        found = json.loads(path.read_bytes())
        return str(found["owner"])[:200]
    except (NoSuchFile, ValueError, KeyError, TypeError):
        return "an unknown process"


def _token(bucket: Bucket, key: str) -> str | None:
    try:
        found = json.loads(bucket.whole(key))
        return str(found["token"])
    except (NoSuchFile, ValueError, KeyError, TypeError):
        return None


def _content(token: str, number: int) -> bytes:
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    return compact_json({"owner": owner, "renewed": number, "token": token})
