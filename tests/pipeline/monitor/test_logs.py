"""Log lines are JSON, name the video that is at work, and hold no credentials."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitor import logs
from pipeline.stopwatch import Stopwatch


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], logging.getLogger(logs.LOGGER).level
    text = io.StringIO()
    logs.set_up_worker_logs("10.0.0.7 (worker-3, 5e1f0c2a)", "b1", text)
    yield text
    root.handlers[:] = before[0]
    logging.getLogger(logs.LOGGER).setLevel(before[1])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_where_and_what(stream: io.StringIO) -> None:
    logs.log(logging.ERROR, "fault", "the mount is away", video_id="vfhq/a.mp4", attempt=2)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "error",
        "event": "fault",
        "message": "the mount is away",
        "node": "10.0.0.7 (worker-3, 5e1f0c2a)",
        "build": "b1",
        "video_id": "vfhq/a.mp4",
        "attempt": 2,
    }


def test_lines_of_libraries_name_the_video_and_the_stage_as_well(stream: io.StringIO) -> None:
    watch = Stopwatch()
    with logs.about("vfhq/a.mp4"):
        with watch.step("score"):
            logging.getLogger("some.library").warning("odd tensor")
            logging.getLogger("some.library").info("chatter")
        logging.getLogger("some.library").error("later")
    logging.getLogger("some.library").error("outside")
    inside, later, outside = lines(stream)
    assert (inside["video_id"], inside["stage"], inside["logger"]) == ("vfhq/a.mp4", "score", "some.library")
    assert later["video_id"] == "vfhq/a.mp4"
    assert "stage" not in later
    assert "video_id" not in outside


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("pipeline.curator").exception("the analysis failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in line["traceback"]


def test_lines_go_to_what_standard_error_is_at_the_time(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up_worker_logs("n", "b2")
    logs.log(logging.INFO, "worker_start", "ready")
    assert json.loads(capsys.readouterr().err)["event"] == "worker_start"
    assert stream.getvalue() == ""


def test_setting_up_twice_writes_each_line_once(stream: io.StringIO) -> None:
    logs.set_up_worker_logs("n", "b2", stream)
    logs.log(logging.INFO, "worker_start", "ready")
    assert [line["build"] for line in lines(stream)] == ["b2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("get s3://me:hunter2@bucket/a failed", "get s3://<removed>@bucket/a failed"),
        ("https://host/a?X-Amz-Signature=ab12&x=1", "https://host/a?X-Amz-Signature=<removed>&x=1"),
        ("https://acc.blob/a?sv=2&sig=a%2Fb", "https://acc.blob/a?sv=2&sig=<removed>"),
        ("SignatureDoesNotMatch for wJalrXUtnFEMI", "SignatureDoesNotMatch for <removed>"),
        ("/data/a@b/c.mp4 and user@host", "/data/a@b/c.mp4 and user@host"),
    ],
)
def test_credentials_are_removed(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("SHORT_TOKEN", "a")  # a word that occurs anyway
    monkeypatch.setenv("DB_PASSWORD", 'quoted"and\\')
    logs.log(logging.ERROR, "fault", text, detail='with quoted"and\\ inside')
    (line,) = lines(stream)
    assert line["message"] == expected
    assert line["detail"] == "with <removed> inside"


@given(st.text(max_size=80), st.dictionaries(st.sampled_from("abc"), st.text(max_size=20)))
def test_every_message_is_one_line_of_json(message: str, fields: dict[str, str]) -> None:
    line = logs.json_line(logging.INFO, "message", message, **fields)
    assert len(line.splitlines()) == 1
    assert set(fields) <= json.loads(line).keys()
