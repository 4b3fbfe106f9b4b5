"""SIGTERM and SIGINT request a stop: the run saves at the end of a step and ends with exit code 0.

Schedulers send SIGTERM before they take a machine away, to one rank or to all. The signal only sets a flag; the
next all-reduce tells all ranks, which save and stop. A second Ctrl-C ends the process at once, for example while
networks are being loaded.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Listens for the signals in the `with` block."""

    def __init__(self) -> None:
        self.received: str | None = None
        """Name of the signal that was received, if any."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.received is not None

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.received = signal.Signals(number).name
