"""Writes the state of a build at intervals, from a thread of its own.

A state that cannot be written ends no build: the next one is tried. The thread also means that an output that
hangs holds up nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import BuildError
from pipeline.monitor.metrics import DriverMetrics
from pipeline.monitor.monitor import EVERY_S, Monitor
from pipeline.monitor.state import BuildState, decode_state, status_path
from shards.atomic import write_bytes
from shards.canonical import indented_json
from storage.bucket import Bucket
from storage.path import AnyPath, ObjectPath

SOON_S = 1.0
"""An operator that begins or ends is written at once, but no more often than this."""
LAST_S = 15.0
"""How long the end of a build waits for the last state to be written."""
REQUEST_S = 10.0
"""How long a request to an object store is tried."""


@contextmanager
def writing(
    monitor: Monitor, output: AnyPath, check_lock: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Write the state of the build for the time of the `with` block, and how the block ended.

    Args:
        monitor: knows the state.
        output: of the build.
        check_lock: raises BuildError once another build has the output, whose state is then there.
    """
    writer = _Writer(monitor, output, check_lock)
    writer.start()
    try:
        yield
    except KeyboardInterrupt:
        monitor.end_build("stopped")
        raise
    except BaseException as error:
        monitor.end_build("failed", f"{error}" or type(error).__name__)
        raise
    else:
        monitor.end_build("finished")
    finally:
        writer.end()


def read_state(output: AnyPath) -> BuildState | None:
    """The state of the build in an output; None when there is none, or it cannot be read."""
    try:
        return decode_state(status_path(output).read_bytes())
    except OSError:
        return None


class _Writer(threading.Thread):
    def __init__(self, monitor: Monitor, output: AnyPath, check_lock: Callable[[], None]) -> None:
        super().__init__(name="status", daemon=True)
        self._monitor = monitor
        self._path = status_path(output)
        self._check_lock = check_lock
        self._metrics = DriverMetrics()
        self._publishing = threading.Lock()
        monitor.publish = self._publish
        self._bucket: Bucket | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Write until the end."""
        while not self._ended.wait(SOON_S):
            self._monitor.changed.clear()
            try:
                self._write()
            except Exception:  # of this state; the next one is tried
                logging.getLogger(__name__).exception("the state of the build was not written")
            self._monitor.changed.wait(EVERY_S - SOON_S)

    def end(self) -> None:
        """Write the last state, and end."""
        self._ended.set()
        self._monitor.changed.set()
        self.join(LAST_S)
        last = threading.Thread(target=self._write, name="status", daemon=True)
        last.start()
        last.join(LAST_S)

    def _publish(self) -> None:
        with self._publishing, suppress(Exception):  # Ray's, while its cluster goes
            if self._metrics.connected:
                self._metrics.publish(self._monitor.state(), self._monitor.newly_finished())

    def _write(self) -> None:
        with suppress(Exception):  # Ray's, while its cluster goes
            self._monitor.count_analysers()
        self._publish()
        state = self._monitor.state()
        with suppress(OSError, BuildError):
            self._check_lock()
            self._replace(indented_json(state.model_dump(mode="json")))

    def _replace(self, data: bytes) -> None:
        if not isinstance(self._path, ObjectPath):
            write_bytes(self._path, data, durable=False)
            return
        # Not the bucket's usual client, which tries a request for much longer.
        self._bucket = self._bucket or Bucket(self._path.root, REQUEST_S)
        self._bucket.write(self._path.key, data)
