"""Writes the report over a finished dataset: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report import timings

if TYPE_CHECKING:
    from pipeline.report.timings import Seconds
    from storage.path import AnyPath

FOLDER = "report"
PAGE = "index.html"
TIMINGS = "timings.json"


def write_report(root: AnyPath, seconds: Seconds | None = None) -> AnyPath:
    """Write `<root>/report/index.html`.

    Args:
        root: directory of a finished dataset.
        seconds: video -> step -> seconds, stored as `<root>/report/timings.json`; when not given, those that
            an earlier report stored are shown, if there are any.

    Returns:
        The page's path.

    Raises:
        DatasetError: no finished dataset, or its tables or the stored timings cannot be read.
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
    content = gather(dataset, tables)
    drawn = draw(dataset.metadata, tables, content["gates"])
    html = render(content | drawn.content, drawn.figures)
    page = root / FOLDER / PAGE
    write_bytes(page, html.encode("utf-8"))
    return page
