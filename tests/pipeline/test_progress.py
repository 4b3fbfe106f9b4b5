"""Progress is a bar on a terminal and a line at intervals in a log, as text or JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import time

import pytest
from rich.console import Console

import pipeline.progress
from pipeline.progress import LogFormat, Reporter, counted, counts_note


def shown(total: int | None, *steps: int, terminal: bool = False, form: LogFormat = LogFormat.TEXT) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, no_color=True, soft_wrap=True)
    with Reporter(console, form).bar("curate", total, "videos") as advance:
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


def test_rate_and_time_left_do_not_count_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.progress, "LOG_EVERY_S", 0.0)
    monkeypatch.setattr(pipeline.progress, "SILENCE_S", 4000.0)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with Reporter(Console(file=text, soft_wrap=True)).bar("curate", 600, "videos") as advance:
        for at_s, done in ((100.0, 1), (110.0, 2), (120.0, 3)):
            now[0] = at_s
            advance(done, f"{done} accepted")
    assert text.getvalue().splitlines()[1:] == [
        "curate: 1/600 after 1 min 40 s  1 accepted",
        "curate: 2/600 after 1 min 50 s, 6.0 videos/min, about 1 h 40 min left  2 accepted",
        "curate: 3/600 after 2 min 00 s, 6.0 videos/min, about 1 h 40 min left  3 accepted",
    ]


def test_an_operator_may_know_better_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.progress, "LOG_EVERY_S", 0.0)
    text = io.StringIO()
    with Reporter(Console(file=text)).bar("curate", 9, "videos", lambda now: 42.0) as advance:
        advance(1, "")
        advance(9, "")
    assert text.getvalue().splitlines()[1:] == [
        "curate: 1/9 after 0 s, about 42 s left",
        "curate: 9/9 after 0 s",
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


@pytest.mark.parametrize("terminal", [True, False])
def test_in_json_each_line_is_an_object_also_on_a_terminal(terminal: bool) -> None:
    lines = [json.loads(line) for line in shown(3, 1, 3, terminal=terminal, form=LogFormat.JSON).splitlines()]
    assert [line["event"] for line in lines] == ["progress", "progress"]
    assert (lines[1]["operator"], lines[1]["done"], lines[1]["total"]) == ("curate", 3, 3)
    assert lines[1]["message"] == "curate: 3/3 after 0 s  3 accepted"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[1]["time"])


def test_messages_are_printed_as_they_are_brackets_colons_and_all() -> None:
    text = io.StringIO()
    Reporter(Console(file=text, soft_wrap=True)).message("[bold]clip[/bold] :smile:.mp4 " + "x" * 300)
    assert text.getvalue() == "[bold]clip[/bold] :smile:.mp4 " + "x" * 300 + "\n"


def test_messages_hold_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    log = io.StringIO()
    Reporter(Console(file=log, width=200)).message("s3://me:hunter2@bucket refused wJalrXUtnFEMI")
    assert log.getvalue() == "s3://<removed>@bucket refused <removed>\n"


def test_messages_have_an_event_and_fields_in_json() -> None:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, soft_wrap=True), LogFormat.JSON)
    reporter.message("Node a joined " + "x" * 300, "node_joined", logging.WARNING, node="a")
    line = json.loads(text.getvalue())
    assert (line["level"], line["event"], line["node"]) == ("warning", "node_joined", "a")
    assert line["message"].startswith("Node a joined x")


def test_an_error_is_marked_as_one_in_both_formats() -> None:
    for form, expected in ((LogFormat.TEXT, "error: no room\n"), (LogFormat.JSON, '"event": "error"')):
        text = io.StringIO()
        Reporter(Console(file=text), form).ending("error", "no room")
        assert expected in text.getvalue()


def test_a_note_names_the_commonest_reasons() -> None:
    reasons = {"rejected": {"a": 1, "b": 5, "c": 2, "d": 9}, "failed": {"timeout": 1}}
    assert counts_note({"accepted": 3, "rejected": 17, "failed": 1}, reasons) == (
        "3 accepted  17 rejected (9 d, 5 b, 2 c, …)  1 failed (1 timeout)"
    )


def test_items_are_counted_once_they_are_used() -> None:
    seen: list[int] = []
    for item in counted("abc", lambda done, note: seen.append(done)):
        assert len(seen) == "abc".index(item)
    assert seen == [1, 2, 3]
