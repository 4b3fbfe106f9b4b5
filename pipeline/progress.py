"""Shows the progress of a build: bars on a terminal, a line at intervals in a log, as text or JSON.

What is shown goes to the monitor as well, which `mfhq status` and the metrics tell from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pipeline.monitor.logs import json_line, redacted
from pipeline.monitor.monitor import Monitor
from pipeline.monitor.operators import Left, Operator
from settings.units import duration, rate

LOG_EVERY_S = 10.0
"""Without a terminal (`ray job logs`, a file) a line is written at most this often."""

SILENCE_S = 60.0
"""Without a terminal, a line is written after about so long without one."""

Advance = Callable[[int, str], None]
"""Called with the amount done and a short note."""
Item = TypeVar("Item")
MOST_REASONS = 3
"""Reasons that a line of progress names."""


class LogFormat(StrEnum):
    """Of the lines on standard error."""

    TEXT = "text"
    JSON = "json"


class Reporter:
    """Shows the progress of a build.

    Args:
        console: where to write; standard error by default, so that results can be piped.
        log_format: in JSON, each line is an object and no bars are drawn.
        command: that the user has given; it continues the build.
    """

    def __init__(
        self, console: Console | None = None, log_format: LogFormat = LogFormat.TEXT, command: str = ""
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.monitor = Monitor()
        self.command = command
        self._json = log_format is LogFormat.JSON

    def message(self, text: str, event: str = "message", level: int = logging.INFO, **fields: Any) -> None:
        """Write one message.

        Args:
            text: of the message.
            event: its name, for logs in JSON.
            level: of `logging`, for logs in JSON.
            fields: further fields, for logs in JSON.
        """
        text = json_line(level, event, text, **fields) if self._json else redacted(text)
        highlight = False if self._json else None
        self.console.print(text, markup=False, emoji=False, highlight=highlight, soft_wrap=self._json or None)

    def event(self, event: str, text: str, **fields: Any) -> None:
        """Write an event that only logs in JSON need.

        Args:
            event: its name.
            text: for people.
            fields: further fields.
        """
        if self._json:
            self.message(text, event, **fields)

    def ending(self, event: str, text: str) -> None:
        """Write how the command ended.

        Args:
            event: `error` or `stopped`.
            text: of the message.
        """
        if event == "error":
            self.message(text if self._json else f"error: {text}", event, logging.ERROR)
        else:
            self.message(text, event)

    @contextmanager
    def bar(
        self,
        title: str,
        total: int | None,
        unit: str = "",
        left: Left | None = None,
        fields: Callable[[], Mapping[str, Any]] = dict,
    ) -> Iterator[Advance]:
        """Show the progress of an operator for the time of the `with` block.

        Args:
            title: name of the operator.
            total: units of work; None when not known.
            unit: what is counted, for the rate; without one, no rate is shown.
            left: estimates the seconds that are left; by the rate when None.
            fields: further fields of the lines of a log in JSON.
        """
        with self.operator(title, total, unit, left) as operator:
            on_terminal = self.console.is_terminal and not self._json
            with self._bar(operator) if on_terminal else self._log(operator, fields) as advance:
                yield advance

    @contextmanager
    def operator(
        self, title: str, total: int | None, unit: str, left: Left | None = None
    ) -> Iterator[Operator]:
        """Only note the progress of an operator, for `mfhq status`; arguments as those of `bar`."""
        operator = self.monitor.begin(title, total, unit, left)
        try:
            yield operator
        finally:
            self.monitor.end(operator)

    @contextmanager
    def _bar(self, operator: Operator) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Pace(operator),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            task = progress.add_task(operator.name, total=operator.total, note="")

            def advance(done: int, note: str) -> None:
                operator.advance(done, time.monotonic())
                progress.update(task, completed=done, note=note)

            yield advance

    @contextmanager
    def _log(self, operator: Operator, fields: Callable[[], Mapping[str, Any]]) -> Iterator[Advance]:
        log = _Log(operator, self.message, fields)
        with log.alive():
            yield log.advance


class _Pace(ProgressColumn):
    """Time so far, rate, and time left."""

    max_refresh = 1.0

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self._operator = operator

    def render(self, task: Task) -> Text:
        """The text of the column."""
        del task
        return Text(f"{duration(time.monotonic() - self._operator.begun)}{pace(self._operator)}")


def pace(operator: Operator) -> str:
    """Rate and time left, each after a comma, as far as they are known."""
    now = time.monotonic()
    at_end = operator.total is not None and operator.done >= operator.total
    per_s = None if at_end or not operator.unit else operator.meter.rate(now)
    left_s = operator.left_s(now)
    shown = "" if per_s is None else f", {rate(per_s, operator.unit)}"
    return shown + ("" if left_s is None else f", about {duration(left_s)} left")


def counted(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    """The items, each noted as done once the next one is asked for."""
    for done, item in enumerate(items, 1):
        yield item
        advance(done, "")


def counts_note(statuses: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> str:
    """How many videos have each status, with the commonest reasons."""
    parts = []
    for status, count in statuses.items():
        common = sorted(reasons.get(status, {}).items(), key=lambda item: (-item[1], item[0]))
        named = [f"{number} {reason}" for reason, number in common[:MOST_REASONS] if number]
        named += ["…"] if len(common) > MOST_REASONS else []
        parts.append(f"{count} {status} ({', '.join(named)})" if named else f"{count} {status}")
    return "  ".join(parts)


class _Log:
    """Lines of progress: at most one every LOG_EVERY_S, and one when none was written for SILENCE_S.

    Args:
        operator: at work.
        write: writes a line.
        fields: further fields of each line.
    """

    def __init__(
        self, operator: Operator, write: Callable[..., None], fields: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._operator = operator
        self._write = write
        self._fields = fields
        self._last = operator.begun
        self._note = ""
        self._lock = threading.Lock()
        self._send(f"{operator.name}: 0{self._of_total}", 0.0)

    @property
    def _of_total(self) -> str:
        total = self._operator.total
        return "" if total is None else f"/{total}"

    def advance(self, done: int, note: str) -> None:
        """Note what is done, and write a line when it is time."""
        with self._lock:
            now = time.monotonic()
            self._note = note
            self._operator.advance(done, now)
            if now - self._last >= LOG_EVERY_S or done == self._operator.total:
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
        operator = self._operator
        spent = now - operator.begun
        text = f"{operator.name}: {operator.done}{self._of_total} after {duration(spent)}{pace(operator)}"
        self._send(f"{text}  {self._note}".rstrip(), spent)

    def _send(self, text: str, spent: float) -> None:
        operator = self._operator
        now = time.monotonic()
        left_s, per_s = operator.left_s(now), operator.meter.rate(now)
        self._write(
            text,
            event="progress",
            operator=operator.name,
            done=operator.done,
            total=operator.total,
            seconds=round(spent, 1),
            per_s=None if per_s is None else round(per_s, 6),
            left_s=None if left_s is None else round(left_s, 1),
            **self._fields(),
        )
