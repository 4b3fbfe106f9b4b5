"""The heartbeat of work with files: when this process has last read or written something.

A read of a mount whose server is gone waits in the kernel without end and raises nothing. So the work beats with
each file and each sample that is done, and `pipeline.time_limit.while_beating` ends work without a heartbeat.
The clock is one for the process, because a process does one task at a time, with threads that read for it.
"""

from __future__ import annotations

import time

SLOWEST_BYTES_S = 2**20
"""The slowest storage that is waited for: where many bytes move in one call, they get this time."""

_last_beat = time.monotonic()


def beat(next_bytes: int = 0) -> None:
    """Note that something was read or written.

    Args:
        next_bytes: that the next call moves, such as when a large file reaches the disk or an object store.
    """
    global _last_beat  # noqa: PLW0603 - the clock of the process
    _last_beat = time.monotonic() + next_bytes / SLOWEST_BYTES_S


def beat_for_retry() -> None:
    """Note that a request is tried again, which ends by itself; a large call keeps its time."""
    global _last_beat  # noqa: PLW0603
    _last_beat = max(_last_beat, time.monotonic())


def since_beat_s() -> float:
    """Seconds since the last beat; below 0 while a large call has time left."""
    return time.monotonic() - _last_beat
