"""`mfhq status`: prints the status of a build, once or until it ends."""

from __future__ import annotations

import json
import sys
import time

import typer

from pipeline.monitor.status import as_json as json_of
from pipeline.monitor.status import read_status
from pipeline.monitor.status_text import status_text
from storage.path import AnyPath

AGAIN_S = 5.0
"""How often `--watch` looks."""
CLEAR = "\x1b[H\x1b[2J"
"""Clears a terminal."""


def show_status(output: AnyPath, *, as_json: bool = False, watch: bool = False) -> bool:
    """Print the status of the build in an output to standard output.

    Args:
        output: of the build.
        as_json: print a JSON object; with `watch`, one in each line.
        watch: print it again until the build ends.

    Returns:
        False when a build that was watched ended without a dataset.

    Raises:
        BuildError: there is no build.
        DatasetError: the dataset there is damaged.
        StorageError: the object store cannot be read.
    """
    clear = watch and sys.stdout.isatty() and not as_json
    shown = ""
    while True:
        status = read_status(output)
        indent = None if watch else 2
        text = json.dumps(json_of(status), indent=indent) if as_json else status_text(status)
        if clear:
            typer.echo(CLEAR, nl=False)
        elif shown and not as_json:
            typer.echo()
        typer.echo(text)
        shown = text
        if not watch:
            return True
        if status.condition not in {"planning", "running"}:
            return status.condition == "finished"
        time.sleep(AGAIN_S)
