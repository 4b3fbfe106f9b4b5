"""Errors that a user can act on, printed as one message without a traceback."""

from __future__ import annotations

import os
import signal
import sys

import typer

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of a command that SIGINT or SIGTERM ended, as in shells."""


class user_errors:  # noqa: N801 - reads as a statement
    """Print the errors that a user can act on and exit with 1; other errors keep their traceback.

    Args:
        stopped: the message after Ctrl-C, which exits with 130, or SIGTERM, with 143.
    """

    def __init__(self, stopped: str = "stopped") -> None:
        self._stopped = stopped

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
            typer.echo(self._stopped, err=True)
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
            typer.echo(f"error: {error}", err=True)
            sys.exit(1)
