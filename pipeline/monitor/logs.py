"""Structured logs: one JSON object a line, with the id of the video that a process is at work on.

    {"time": "2026-03-01T09:30:00.250Z", "level": "info", "event": "video", "message": "rejected: no_face",
     "node": "10.0.0.7 (worker-3, 5e1f0c2a)", "build": "…", "video_id": "vfhq/a.mp4", "stage": "score", …}

The standard library's `logging` does it. A process of a build writes to its standard error, which Ray keeps in a
file of its node. Lines of libraries from `warning` on have the same form.

Ray's own `LoggingConfig` is not used: it sets up the root logger of the driver too, at one level for Ray, the
libraries and this project, and knows nothing of the video that a line is about.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = __name__.removesuffix(".monitor.logs")
"""The logger of the pipeline, `pipeline` or `omniid.pipeline`: its lines are written from `info` on."""
FIELDS = "fields"
"""Name of the attribute of a log record that holds the fields of its line."""
_VIDEO: ContextVar[str] = ContextVar("video", default="")
_STAGE: ContextVar[str] = ContextVar("stage", default="")

_USER = re.compile(r"(\w://)[^/\s@]+@")
_QUERY = re.compile(
    r"([?&](?:x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|signature|sig|token|access_token|key)=)[^&\s\"']+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|ACCOUNT_KEY|SAS_KEY|API_KEY")
_SHORTEST_SECRET = 8
"""Shorter values are words that occur anyway."""


def redacted(text: str) -> str:
    """The text without credentials: those of URLs, and values of variables that are named as secrets.

    The messages of this project hold none. Those of libraries and of the system may.
    """
    text = _QUERY.sub(r"\1<removed>", _USER.sub(r"\1<removed>@", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name):
            for written in {value, json.dumps(value)[1:-1]}:
                text = text.replace(written, "<removed>")
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Args:
        always: fields of every line.
    """

    def __init__(self, **always: str) -> None:
        super().__init__()
        self._always = {name: value for name, value in always.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "event": fields.get("event", "message"),
            "message": record.getMessage(),
            **self._always,
        }
        for name, variable in (("video_id", _VIDEO), ("stage", _STAGE)):
            if value := variable.get():
                line[name] = value
        line |= fields
        if record.name != LOGGER and not record.name.startswith(f"{LOGGER}."):
            line["logger"] = record.name
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line, default=str))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is when a line comes."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def set_up_worker_logs(node: str, build: str, stream: TextIO | None = None) -> None:
    """Write the log lines of this process as JSON.

    Args:
        node: where it runs.
        build: distinguishes builds of one output.
        stream: takes the lines; standard error when None.
    """
    handler = logging.StreamHandler(stream) if stream else _StandardError()
    handler.setFormatter(JsonFormatter(node=node, build=build))
    handler.set_name(LOGGER)
    root = logging.getLogger()
    for before in [each for each in root.handlers if each.get_name() == LOGGER]:
        root.removeHandler(before)
    root.addHandler(handler)
    logging.getLogger(LOGGER).setLevel(logging.INFO)


@contextmanager
def about(video_id: str) -> Iterator[None]:
    """Lines that are logged within the block are about a video."""
    token = _VIDEO.set(video_id)
    try:
        yield
    finally:
        _VIDEO.reset(token)


def enter_stage(stage: str) -> Token[str]:
    """Lines belong to a stage, until `leave_stage`; two functions, because this happens for every frame."""
    return _STAGE.set(stage)


def leave_stage(before: Token[str]) -> None:
    """Lines belong to what they belonged to before.

    Args:
        before: from `enter_stage`.
    """
    _STAGE.reset(before)


def log(level: int, event: str, message: str, **fields: Any) -> None:
    """Log an event.

    Args:
        level: of `logging`.
        event: its name, such as `video`, `fault`, `retry`; one of few.
        message: for people.
        fields: further fields of the line.
    """
    logging.getLogger(LOGGER).log(level, message, extra={FIELDS: {"event": event, **fields}})


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(level: int, event: str, message: str, **fields: Any) -> str:
    """The line of an event of the driver, which has a standard error of its own."""
    record = logging.LogRecord(LOGGER, level, "", 0, "%s", (message,), None)
    setattr(record, FIELDS, {"event": event, **fields})
    return JsonFormatter().format(record)
