"""Errors that a user can act on, printed as one message without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import typer

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of a command that SIGINT or SIGTERM ended, as in shells."""


class user_errors:  # noqa: N801 - reads as a statement
    """Print the errors that a user can act on and exit with 1; other errors keep their traceback.

    Args:
        stopped: the message after Ctrl-C, which exits with 130, or SIGTERM, with 143.
        write: writes an event, `stopped` or `error`, and its message; to standard error when None.
    """

    def __init__(self, stopped: str = "stopped", write: Callable[[str, str], None] | None = None) -> None:
        self._stopped = stopped
        self._write = write or _write

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from faces.registry import WeightsUnavailable
        from pipeline.errors import BuildError, Terminated
        from settings.section import ConfigError
        from shards.atomic import OutOfSpace
        from shards.metadata import DatasetError
        from storage.errors import StorageError, UrlError

        if isinstance(error, KeyboardInterrupt):
            # Libraries clean up when the interpreter exits; a second Ctrl-C must not print their tracebacks.
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
            self._write("stopped", self._stopped)
            sys.exit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED)
        known = (
            ConfigError,
            BuildError,
            WeightsUnavailable,
            OutOfSpace,
            DatasetError,
            UrlError,
            StorageError,
        )
        if isinstance(error, known):
            self._write("error", str(error))
            sys.exit(1)


def _write(event: str, message: str) -> None:
    typer.echo(f"error: {message}" if event == "error" else message, err=True)
