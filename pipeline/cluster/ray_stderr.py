"""Keeps false alarms of Ray's C++ core off the terminal.

Ray Data passes every actor its operator's code by reference, and Ray's core logs an error about each such actor
(ray-project/ray#57733): a restart could fail if that object were gone. It is never gone, because the driver holds
it as long as the operator lives. No argument or option of Ray avoids the line, and Ray's log level
would hide everything else with it. So what this process and its libraries write to file descriptor 2 passes
through a pipe, and a line that matches `FALSE_ALARMS` is left out. Ray's own log files still hold it.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

FALSE_ALARMS = re.compile(
    rb"core_worker\.cc:\d+: Actor with class name: 'MapWorker\(.*' and ID: '[0-9a-f]+' "
    rb"has constructor arguments in the object store and max_restarts > 0\."
)
STDERR = 2
END_S = 2.0
"""How long to wait for the last lines; a child process may keep the pipe open without writing."""


@contextmanager
def without_false_alarms() -> Iterator[None]:
    """Filter what C and C++ code writes to standard error within the `with` block.

    Python's `sys.stderr` keeps the original file, so a terminal still shows progress bars.
    """
    sys.stderr.flush()
    original = os.dup(STDERR)
    readable, writable = os.pipe()
    os.dup2(writable, STDERR)
    os.close(writable)
    forwarder = threading.Thread(target=_forward, args=(readable, original), daemon=True)
    forwarder.start()
    before = sys.stderr
    if _is_standard_error(before):
        sys.stderr = os.fdopen(original, "w", 1, before.encoding, before.errors, closefd=False)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before
        # Closes the pipe's last writing end, so that the thread ends after the last line.
        os.dup2(original, STDERR)
        forwarder.join(END_S)
        if not forwarder.is_alive():
            os.close(original)


def _is_standard_error(stream: TextIO) -> bool:
    try:
        return stream.fileno() == STDERR
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return False


def _forward(readable: int, original: int) -> None:
    with os.fdopen(readable, "rb") as lines, os.fdopen(original, "wb", 0, closefd=False) as sink:
        for line in lines:
            if not FALSE_ALARMS.search(line):
                sink.write(line)
