"""Shows the progress of a build: bars on a terminal, a line at intervals in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY_S = 10.0
"""Without a terminal (`ray job logs`, a file) a line is written at most this often."""

SILENCE_S = 60.0
"""Without a terminal, a line is written after about so long without one."""

Advance = Callable[[int, str], None]
"""Called with the amount done and a short note."""


class Reporter:
    """Shows the progress of a build.

    Args:
        console: where to write; standard error by default, so that results can be piped.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """Write one message."""
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Advance]:
        """A progress bar of `total` units, None when not known, for the time of the `with` block."""
        with self._bar(title, total) if self.console.is_terminal else self._log(title, total) as advance:
            yield advance

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note: progress.update(task, completed=done, note=note)

    @contextmanager
    def _log(self, title: str, total: int | None) -> Iterator[Advance]:
        log = _Log(title, total, self.message)
        with log.alive():
            yield log.advance


class _Log:
    """Lines of progress: at most one every LOG_EVERY_S, and one when none was written for SILENCE_S.

    Args:
        title: of the work.
        total: amount of work; None when not known.
        write: writes one line.
    """

    def __init__(self, title: str, total: int | None, write: Callable[[str], None]) -> None:
        self._title = title
        self._total = total
        self._write = write
        self._start = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._done = 0
        self._note = ""
        self._lock = threading.Lock()
        write(f"{title}: 0{self._of_total}")

    @property
    def _of_total(self) -> str:
        return "" if self._total is None else f"/{self._total}"

    def advance(self, done: int, note: str) -> None:
        """Note what is done, and write a line when it is time."""
        with self._lock:
            now = time.monotonic()
            self._done, self._note = done, note
            # Counted from the first result: what comes before it is start-up.
            self._first = self._first or (now, done)
            if now - self._last >= LOG_EVERY_S or done == self._total:
                self._line(now)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Write a line now and then while nothing is done: one long video can take minutes."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(SILENCE_S / 4):
                with self._lock:
                    if not ended.is_set() and time.monotonic() - self._last >= SILENCE_S:
                        self._line(time.monotonic())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _line(self, now: float) -> None:
        self._last = now
        left = ""
        since, before = self._first or (now, self._done)
        if self._total and before < self._done < self._total:
            left = f", about {(now - since) / (self._done - before) * (self._total - self._done):.0f} s left"
        text = (
            f"{self._title}: {self._done}{self._of_total} after {now - self._start:.0f} s{left}  {self._note}"
        )
        self._write(text.rstrip())
