"""Errors that a user can act on, printed as one message without a traceback."""

from __future__ import annotations

import sys

import typer


class user_errors:  # noqa: N801 - reads as a statement
    """Print the errors that a user can act on and exit with 1; other errors keep their traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from faces.registry import WeightsUnavailable
        from pipeline.errors import BuildError
        from settings.section import ConfigError
        from shards.atomic import OutOfSpace
        from shards.metadata import DatasetError

        if isinstance(error, KeyboardInterrupt):
            typer.echo("stopped; the same command again continues", err=True)
            sys.exit(130)
        if isinstance(error, ConfigError | BuildError | WeightsUnavailable | OutOfSpace | DatasetError):
            typer.echo(f"error: {error}", err=True)
            sys.exit(1)
