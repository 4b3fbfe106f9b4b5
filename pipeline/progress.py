"""Shows the progress of a build: bars on a terminal, a line at intervals in a log."""

from __future__ import annotations

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
        start = last = time.monotonic()
        first: tuple[float, int] | None = None
        of_total = "" if total is None else f"/{total}"
        self.message(f"{title}: 0{of_total}")

        def advance(done: int, note: str) -> None:
            nonlocal first, last
            now = time.monotonic()
            # Counted from the first result: what comes before it is start-up.
            first = first or (now, done)
            if now - last >= LOG_EVERY_S or done == total:
                last = now
                since, before = first
                left = ""
                if total and before < done < total:
                    left = f", about {(now - since) / (done - before) * (total - done):.0f} s left"
                self.message(f"{title}: {done}{of_total} after {now - start:.0f} s{left}  {note}".rstrip())

        yield advance
