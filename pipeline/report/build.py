"""Writes the report over a finished dataset: one HTML file that opens anywhere, without a network.

Memory and the size of the page do not grow with the dataset: tables are read in batches, and all lists are capped.
What is kept of each video and identity are about 60 bytes, such as the hashes of ids in `pipeline.report.hashed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.not_accepted import COLUMNS, NOT_ACCEPTED, ListError, missing_in, write_not_accepted
from pipeline.people import findings
from pipeline.report import timings
from shards.layout import VIDEOS
from shards.metadata import DatasetError

if TYPE_CHECKING:
    from pipeline.not_accepted import Missing
    from pipeline.report.timings import Seconds
    from shards.streamed import StreamedDataset
    from storage.path import AnyPath

FOLDER = "report"
PAGE = "index.html"
TIMINGS = "timings.parquet"


def write_report(root: AnyPath, seconds: Seconds | None = None, missing: Missing | None = None) -> AnyPath:
    """Write `<root>/report/index.html`, and beside it the list of what was not accepted.

    What linking found is read from `<root>/report/people.json`, if it is there.

    Args:
        root: directory of a finished dataset.
        seconds: of each video by step, stored as `<root>/report/timings.parquet`; when not given, those that
            an earlier report stored are shown, if there are any.
        missing: clips without a file; when not given, those that an earlier list has.

    Returns:
        The page's path.

    Raises:
        DatasetError: no finished dataset, or its tables, the stored timings, the findings of linking or the list
            cannot be read.
        OutOfSpace: the disk is full; an earlier report is unchanged.
    """
    from pipeline.report.content import count, gather, shown_keys
    from pipeline.report.drawing import draw
    from pipeline.report.page import render
    from shards.atomic import write_bytes
    from shards.streamed import StreamedDataset

    dataset = StreamedDataset.open(root)
    report = root / FOLDER
    if seconds is not None:
        timings.keep(report / TIMINGS, seconds)
    counts = count(dataset, _times(dataset, report / TIMINGS))
    found = findings.read_findings(report / findings.FILE)
    missing = _missing_in(report / NOT_ACCEPTED) if missing is None else missing
    write_not_accepted(report / NOT_ACCEPTED, dataset.batches(VIDEOS, COLUMNS), missing)
    samples = dataset.find(shown_keys(counts.images, found))
    content = gather(dataset.metadata, counts, missing, found, samples)
    drawn = draw(dataset.metadata, counts, content["gates"])
    html = render(content | drawn.content, drawn.figures)
    write_bytes(report / PAGE, html.encode("utf-8"))
    return report / PAGE


def _times(dataset: StreamedDataset, path: AnyPath) -> timings.Timings | None:
    from pipeline.report.video_counts import video_ids

    batches = timings.kept(path)
    return None if batches is None else timings.measure(batches, video_ids(dataset))


def _missing_in(path: AnyPath) -> Missing:
    try:
        return missing_in(path)
    except (ListError, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. Without the file, it is written anew") from error
