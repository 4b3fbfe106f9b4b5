"""Progress is a bar on a terminal and a line at intervals in a log."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

import pipeline.progress
from pipeline.progress import Reporter


def shown(total: int | None, *steps: int, terminal: bool = False) -> str:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=100, no_color=True))
    with reporter.bar("curate", total) as advance:
        for done in steps:
            advance(done, f"{done} accepted")
    return text.getvalue()


def test_a_log_gets_the_start_and_the_end_and_not_a_line_for_each_video() -> None:
    first, last = shown(500, *range(1, 501)).splitlines()
    assert first == "curate: 0/500"
    assert last == "curate: 500/500 after 0 s  500 accepted"


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.progress, "LOG_EVERY_S", 0.0)
    assert len(shown(4, 1, 2, 3, 4).splitlines()) == 5


def test_the_time_left_does_not_count_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 110.0, 120.0])
    monkeypatch.setattr(pipeline.progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(pipeline.progress, "SILENCE_S", 4000.0)
    lines = shown(6, 1, 2, 3).splitlines()
    assert lines[1:] == [
        "curate: 1/6 after 100 s  1 accepted",
        "curate: 2/6 after 110 s, about 40 s left  2 accepted",
        "curate: 3/6 after 120 s, about 30 s left  3 accepted",
    ]


def test_a_log_shows_that_the_work_goes_on_while_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.progress, "SILENCE_S", 0.02)
    text = io.StringIO()
    with Reporter(Console(file=text, soft_wrap=True)).bar("curate", 4) as advance:
        advance(1, "1 accepted")
        deadline = time.monotonic() + 10
        while "after" not in text.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert re.fullmatch(r"curate: 1/4 after \d+ s  1 accepted", text.getvalue().splitlines()[1])


def test_a_log_of_unknown_length_promises_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.progress, "LOG_EVERY_S", 0.0)
    assert shown(None, 7).splitlines() == ["curate: 0", "curate: 7 after 0 s  7 accepted"]


@pytest.mark.parametrize(("total", "end"), [(3, "3/3"), (None, "3/?")])
def test_a_terminal_gets_a_bar_with_counts_and_note(total: int | None, end: str) -> None:
    text = shown(total, 1, 2, 3, terminal=True)
    assert end in text
    assert "3 accepted" in text


def test_messages_are_printed_as_they_are_brackets_and_all() -> None:
    text = io.StringIO()
    Reporter(Console(file=text, soft_wrap=True)).message("[bold]clip[/bold].mp4 " + "x" * 300)
    assert text.getvalue() == "[bold]clip[/bold].mp4 " + "x" * 300 + "\n"
