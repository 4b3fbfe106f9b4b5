"""Notes that the machine's memory runs out while a video is at work.

Ray's memory monitor and the kernel kill a process without a message, and its successor cannot ask why. So this one
leaves a note while the memory is nearly used up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

EVERY_S = 0.2
THRESHOLD = "RAY_memory_usage_threshold"
"""Ray's own switch: the share of the memory in use at which it kills a process."""
BELOW = 0.05
"""How far below that share memory counts as running out."""
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


class MemoryWatch:
    """Looks at the machine's memory from a thread of its own.

    Args:
        used: the share of the memory that is in use.
        limit: share from which on it is running out; by default just below the one at which Ray kills.
    """

    def __init__(self, used: Callable[[], float] | None = None, limit: float | None = None) -> None:
        self._used = used or used_share
        kills = float(os.environ.get(THRESHOLD, "0.95"))
        self._limit = kills - BELOW if limit is None else limit
        self._note: Callable[[], None] | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def noting(self, note: Callable[[], None]) -> Iterator[None]:
        """Call `note` once if the memory runs out within the block."""
        self._note = note
        try:
            yield
        finally:
            self._note = None

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(EVERY_S):
            note = self._note
            with suppress(OSError):  # the output, whose own faults are met elsewhere
                if note is not None and self._used() >= self._limit:
                    self._note = None
                    note()


def used_share() -> float:
    """The share of the memory that is in use, of the machine or of this container, whichever is larger."""
    facts = {}
    for line in MEMINFO.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        facts[name] = int(rest.split()[0])
    machine = 1 - facts["MemAvailable"] / facts["MemTotal"]
    return max(machine, _container_share())


def _container_share() -> float:
    """The share of the container's limit that is in use, without the cache of files; 0 without a limit."""
    try:
        most = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if most == "max":
            return 0.0
        current = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (CGROUP / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return 0.0
    cache = int(stat[stat.index("inactive_file") + 1])
    return (current - cache) / int(most)
