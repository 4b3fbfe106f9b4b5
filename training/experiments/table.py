"""What the evaluations of a table found, beside the paper's figures: as data and as Markdown.

A figure of a row is the mean over its seeds. With several seeds its interval is over seeds: how much another
training would differ. With one seed it is that of the evaluation, over persons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shards.atomic import write_bytes
from training.data.dataset import open_dataset
from training.evaluate.command import RETRY_S
from training.evaluate.comparison import SourceColumn, write_comparison
from training.experiments.config import Row, Size
from training.experiments.evaluations import SWAP_RATIO, differences, figures_of, read_evaluations
from training.experiments.plan import Plan
from training.experiments.plot import plot_svg
from training.experiments.result import Figure, Figures, RowResult

_DIGITS = {"pose_error": 1, SWAP_RATIO: 4}
"""Decimals of figures that do not have three."""


_REASONS = {
    "pose_error": "no pose was found in the images",
    "similarity_found": "no face was found in the images",
    SWAP_RATIO: "the run has no validation with these numbers of inputs",
}
"""Why a row that is evaluated may have no such figure."""


def collect(plan: Plan, size: Size, root: Path) -> list[RowResult]:
    """The results of a plan's rows, in their order.

    Raises:
        TrainingError: a file of an evaluation is damaged.
    """
    rows = [row for row in plan.table.rows if row.name in plan.evaluations]
    names, inputs = (*plan.table.figures, *size.figures), plan.table.inputs
    found = {row.name: read_evaluations(plan.evaluations[row.name], root) for row in rows}
    first = found[rows[0].name]

    def result(row: Row) -> RowResult:
        own = found[row.name]
        compared = {} if own is first else differences(own, first, names, inputs)
        return RowResult(
            row=row.name,
            label=size.labels.get(row.name, row.label),
            x=row.x,
            figures=figures_of(own, names, inputs, row.paper),
            minus_first=compared,
            network=next((each.network for each in own.values()), None),
            seeds=len(own),
            planned=len(plan.evaluations[row.name]),
            code_versions=tuple(sorted({str(each.document["code_version"]) for each in own.values()})),
            warnings=tuple(dict.fromkeys(warning for each in own.values() for warning in each.warnings)),
            without=tuple(name for name in names if own and name not in figures_of(own, [name], inputs, {})),
            not_compared=sum(
                own[seed].conditions != first[seed].conditions for seed in own.keys() & first.keys()
            ),
        )

    return [result(row) for row in rows]


def write_sheet(plan: Plan, size: Size, name: str, root: Path) -> Path | None:
    """Write `<table>-<size>.png`: what the rows make of the same people, each by its first seed that is evaluated.

    Args:
        plan: of the table.
        size: at which it was run.
        name: of the size.
        root: output directory of all experiments.

    Returns:
        The file; None when no row is evaluated.

    Raises:
        TrainingError: the dataset, or an image of an evaluation, cannot be read.
        OutOfSpace: the disk or the quota is full.
    """
    columns, data = [], ""
    for row in plan.table.rows:
        jobs = plan.evaluations.get(row.name, ())
        for _, found in sorted(read_evaluations(jobs, root).items())[:1]:
            label = size.labels.get(row.name, row.label)
            columns.append(SourceColumn(label, found.folder, found.source, found.pose_conditioned))
            data = jobs[0].settings["data"]
    if not columns:
        return None
    path = root / f"{plan.table.name}-{name}.png"
    write_comparison(path, open_dataset(data, RETRY_S), columns, plan.table.inputs)
    return path


def markdown(title: str, inputs: Sequence[int], results: Sequence[RowResult]) -> str:
    """The table as Markdown: each figure with its interval, and beside it the paper's; then what rows differ by.

    Args:
        title: of the table.
        inputs: numbers of input images.
        results: of the rows. A figure that no row has gets no column.
    """
    lines = [f"# {title}", "", *_rows(results, inputs, lambda result: result.figures), "", _note(results)]
    others = [result for result in results if result.minus_first]
    if others:
        lines += [
            "",
            f"Differences from the row {results[0].label}, of the same seeds and persons:",
            "",
            *_rows(others, inputs, lambda result: result.minus_first, signed=True),
        ]
    if remarks := _remarks(results):
        lines += ["", *remarks]
    return "\n".join(lines) + "\n"


def _rows(
    results: Sequence[RowResult],
    inputs: Sequence[int],
    figures_of_row: Callable[[RowResult], Figures],
    *,
    signed: bool = False,
) -> list[str]:
    """Lines of a table: a row each; a column for each figure and number of inputs, and for the paper's figures."""
    figures = [figures_of_row(result) for result in results]
    names = list(dict.fromkeys(name for own in figures for name in own))
    heads, columns = ["row", "seeds"], []
    for name, count in ((name, count) for name in names for count in inputs):
        column = [own.get(name, {}).get(count) for own in figures]
        if not any(column):
            continue
        heads.append(f"{name.replace('_', ' ')}, {count} input{'s' if count > 1 else ''}")
        digits = _DIGITS.get(name, 3)
        columns.append([_cell(figure, digits, signed=signed) for figure in column])
        if any(figure and figure.paper is not None for figure in column):
            heads.append("paper")
            columns.append([_paper_cell(figure, digits) for figure in column])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for result, own, *cells in zip(results, figures, *columns, strict=True):
        done = max(
            (len(figure.seeds) for by_count in own.values() for figure in by_count.values()), default=0
        )
        lines.append(f"| {' | '.join([result.label, f'{done} of {result.planned}', *cells])} |")
    return lines


def _remarks(results: Sequence[RowResult]) -> list[str]:
    """What a reader must know of single rows, as a list; a warning of several rows once."""
    rows: dict[str, list[str]] = {}
    for result in results:
        for warning in result.warnings:
            rows.setdefault(warning, []).append(result.label)
        for name in result.without:
            reason = _REASONS.get(name, "the evaluations have none")
            text = f"there is no {name.replace('_', ' ')}, because {reason}"
            rows.setdefault(text, []).append(result.label)
        if result.not_compared:
            text = (
                f"{result.not_compared} of {result.seeds} seeds are not compared with the first row: evaluated on "
                "another dataset, measured by other networks, or sampled on another kind of device, in another "
                "precision or number of steps"
            )
            rows.setdefault(text, []).append(result.label)
    everyone = [result.label for result in results if result.seeds]
    return [
        f"- {'All rows' if labels == everyone else ', '.join(labels)}: {text}"
        for text, labels in rows.items()
    ]


def _cell(figure: Figure | None, digits: int, *, signed: bool) -> str:
    if figure is None:
        return ""
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"


def _paper_cell(figure: Figure | None, digits: int) -> str:
    return "" if figure is None or figure.paper is None else f"{figure.paper:.{digits}f}"


def _note(results: Sequence[RowResult]) -> str:
    networks = sorted({result.network for result in results if result.network})
    measured = (
        f" Similarity is measured by {', '.join(networks)}, the paper's by ArcFace." if networks else ""
    )
    single = (
        " One seed cannot tell two trainings apart." if any(result.seeds == 1 for result in results) else ""
    )
    return (
        "In brackets: 95 % intervals, over seeds where a row has several, else over persons."
        + single
        + measured
    )


def write_table(
    plan: Plan, size: str, results: Sequence[RowResult], output: Path, facts: dict[str, Any]
) -> tuple[list[Path], str]:
    """Write `<table>-<size>.json` and `.md`, and the plot as `.svg` once a row is evaluated.

    Args:
        plan: of the table.
        size: at which it was run.
        results: of its rows.
        output: directory.
        facts: what else the file says of the runs: datasets, version of the code.

    Returns:
        The files, none when those that are there have more evaluations; and the Markdown.
    """
    table = plan.table
    document = facts | {
        "table": table.name,
        "size": size,
        "title": table.title,
        "rows": [asdict(result) for result in results],
        "evaluations": {row: [job.name for job in jobs] for row, jobs in plan.evaluations.items()},
    }
    title = f"{table.title} (size {size})"
    text = markdown(title, table.inputs, results)
    content = {"json": (json.dumps(document, indent=2) + "\n").encode(), "md": text.encode()}
    if any(result.figures for result in results):
        content["svg"] = plot_svg(title, table.x, results)
    written: list[Path] = []
    if evaluated_before(output / f"{table.name}-{size}.json") > sum(result.seeds for result in results):
        return written, text
    for suffix, data in content.items():
        written.append(output / f"{table.name}-{size}.{suffix}")
        write_bytes(written[-1], data)
    return written, text


def evaluated_before(path: Path) -> int:
    """The evaluations in the `.json` of a table; 0 where there is none that can be read."""
    try:
        return sum(row["seeds"] for row in json.loads(path.read_bytes())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
