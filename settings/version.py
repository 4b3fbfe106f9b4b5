"""The project's version, and `--version` for both commands."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Annotated

import typer

PROJECT = "omniid"
CHECKOUT = Path(__file__).parents[1]


def project_version() -> str:
    """The version of this project, also where its code was copied and not installed, as `ray job submit` does."""
    try:
        return importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])


def add_version(app: typer.Typer) -> None:
    """Add the option `--version`, which prints the version and exits."""
    app.callback()(_options)


def _print_version(context: typer.Context, requested: bool) -> None:
    if requested:
        typer.echo(f"{context.find_root().info_name} {project_version()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del version  # the callback prints it
