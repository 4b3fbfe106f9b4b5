"""A progress bar for commands that read files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

FEW = 4
"""So many files need no progress bar."""


@contextmanager
def file_progress(files: int) -> Iterator[Callable[[], None]]:
    """Show the progress of so many files on standard error, where that is a terminal.

    Yields:
        A function to call after each file.
    """
    if files <= FEW or not sys.stderr.isatty():
        yield lambda: None
        return
    with typer.progressbar(length=files, label="Finding faces", show_pos=True, file=sys.stderr) as bar:
        yield lambda: bar.update(1)
