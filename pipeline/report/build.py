"""Writes the report over a finished dataset: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.not_accepted import NOT_ACCEPTED, ListError, missing_in, write_not_accepted
from pipeline.report import timings
from shards.metadata import DatasetError

if TYPE_CHECKING:
    from pipeline.not_accepted import Missing
    from pipeline.report.timings import Seconds
    from storage.path import AnyPath

FOLDER = "report"
PAGE = "index.html"
TIMINGS = "timings.json"


def write_report(root: AnyPath, seconds: Seconds | None = None, missing: Missing | None = None) -> AnyPath:
    """Write `<root>/report/index.html`, and beside it the list of what was not accepted.

    Args:
        root: directory of a finished dataset.
        seconds: video -> step -> seconds, stored as `<root>/report/timings.json`; when not given, those that
            an earlier report stored are shown, if there are any.
        missing: clips without a file; when not given, those that an earlier list has.

    Returns:
        The page's path.

    Raises:
        DatasetError: no finished dataset, or its tables, the stored timings or the list cannot be read.
        OutOfSpace: the disk is full; an earlier report is unchanged.
    """
    from pipeline.report.content import gather, read
    from pipeline.report.drawing import draw
    from pipeline.report.page import render
    from shards.atomic import write_bytes
    from shards.reader import Dataset

    dataset = Dataset.open(root)
    kept = root / FOLDER / TIMINGS
    if seconds is not None:
        timings.keep(kept, seconds)
    tables = read(dataset, timings.kept(kept))
    listed = root / FOLDER / NOT_ACCEPTED
    missing = _missing_in(listed) if missing is None else missing
    write_not_accepted(listed, tables.videos, missing)
    content = gather(dataset, tables, missing)
    drawn = draw(dataset.metadata, tables, content["gates"])
    html = render(content | drawn.content, drawn.figures)
    page = root / FOLDER / PAGE
    write_bytes(page, html.encode("utf-8"))
    return page


def _missing_in(path: AnyPath) -> Missing:
    try:
        return missing_in(path)
    except (ListError, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. Without the file, it is written anew") from error
