"""Where a process runs, and how long it waits there after a fault.

Ray starts a process again where there is room, which is mostly where it was. A node whose mount is lost fails
each video at once, and would take all of them. So a process that met a fault ends, and its successor waits before
it takes work: other nodes do it meanwhile. The time of the faults is kept in a file of that machine.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pipeline.cluster.node_faults import Place

SHORTEST_S, LONGEST_S = 10.0, 60.0
"""After a first fault, and after a place has failed for longer. What a bad node costs is one video a process in
this time; what it costs at the end of a build is this time once."""
KEPT_S = 86_400.0
"""After so long without a fault, a record is removed."""


def this_place() -> Place:
    """The node of this process, and its GPUs."""
    import ray

    host = socket.gethostname()
    if not ray.is_initialized():
        return Place("", host)
    context = ray.get_runtime_context()
    node = context.get_node_id()
    gpus = ray.get_gpu_ids()
    on = f", GPU {','.join(map(str, gpus))}" if gpus else ""
    return Place(node, f"{node_name(ray.util.get_node_ip_address(), host, node)}{on}")


def node_name(address: str, host: str, node: str) -> str:
    """The name of a node in messages."""
    return f"{address} ({host}, {node[:8]})"


class FaultRecord:
    """When faults happened at a place, in a file that outlives the process: the first and the last of a series.

    Args:
        build: distinguishes builds: a new one starts without faults.
        place: the place.
    """

    def __init__(self, build: str, place: Place) -> None:
        name = hashlib.sha256(f"{build}\0{place.name}".encode()).hexdigest()[:16]
        self._path = Path(tempfile.gettempdir()) / f".mfhq-faults-{os.getuid()}" / name

    def wait_s(self) -> float:
        """Seconds until this place is due for another attempt; 0 without a fault."""
        first, last = self._times()
        if not last:
            return 0.0
        return max(0.0, last + min(max(last - first, SHORTEST_S), LONGEST_S) - time.time())

    def add(self) -> None:
        """Record a fault now. On a machine without room for the record, none is kept."""
        first, _ = self._times()
        now = time.time()
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._remove_old(now)
            part = self._path.with_suffix(f".{os.getpid()}")
            part.write_text(f"{first or now} {now}", encoding="ascii")
            part.replace(self._path)

    def clear(self) -> None:
        """Record that a video was finished here."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _remove_old(self, now: float) -> None:
        """Remove the records of builds that have ended."""
        for path in self._path.parent.iterdir():
            with suppress(FileNotFoundError):  # another process removes it as well
                if path.stat().st_mtime < now - KEPT_S:
                    path.unlink()

    def _times(self) -> tuple[float, float]:
        try:
            first, last = self._path.read_text(encoding="ascii").split()
            return float(first), float(last)
        except (OSError, ValueError):
            return 0.0, 0.0
