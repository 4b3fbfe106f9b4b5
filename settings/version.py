"""`--version`, for both commands."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer


def add_version(app: typer.Typer) -> None:
    """Add the option `--version`, which prints the version and exits."""
    app.callback()(_options)


def _print_version(context: typer.Context, requested: bool) -> None:
    if requested:
        typer.echo(f"{context.find_root().info_name} {importlib.metadata.version('omniid')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del version  # the callback prints it
