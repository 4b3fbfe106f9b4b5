"""`--version`, for both commands."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer


def add_version(app: typer.Typer) -> None:
    """Give a command the option `--version`, which says which one it is and ends."""
    app.callback()(_options)


def _say(context: typer.Context, asked: bool) -> None:
    if asked:
        typer.echo(f"{context.find_root().info_name} {importlib.metadata.version('omniid')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    del version  # its callback has done what there is to do
