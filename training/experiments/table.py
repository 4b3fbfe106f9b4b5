"""What the evaluations of a table found, beside the paper's figures: as data and as Markdown.

A figure of a row is the mean over its seeds. With several seeds its interval is over seeds: how much another
training would differ. With one seed it is that of the evaluation, over persons.

Letters in names give the shape:
    Z  seeds
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic import write_bytes
from training.evaluate.names import RESULT_FILE
from training.experiments.commands import is_done
from training.experiments.config import Row, Size
from training.experiments.plan import Plan
from training.experiments.plot import plot_svg
from training.experiments.result import Figure, RowResult

Stat = tuple[float, float, float]
"""A mean, and the ends of its interval."""
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 1, 2, … degrees of freedom."""


def collect(plan: Plan, size: Size, root: Path) -> list[RowResult]:
    """The results of a plan's rows, in their order."""
    return [_collected(plan, row, size, root) for row in plan.table.rows if row.name in plan.evaluations]


def _collected(plan: Plan, row: Row, size: Size, root: Path) -> RowResult:
    jobs = plan.evaluations[row.name]
    results = [
        json.loads((job.output(root) / RESULT_FILE).read_bytes()) for job in jobs if is_done(job, root)
    ]
    figures: dict[str, dict[int, Figure]] = {}
    for name in (*plan.table.figures, *size.figures):
        for inputs in plan.table.inputs:
            values = [stat for result in results if (stat := _read(result, name, inputs))]
            if values:
                paper = row.paper.get(name, {}).get(inputs)
                figures.setdefault(name, {})[inputs] = _figure(values, paper)
    return RowResult(
        row=row.name,
        label=size.labels.get(row.name, row.label),
        x=row.x,
        figures=figures,
        network=_network(results[0]) if results else None,
        seeds=len(results),
        planned=len(jobs),
    )


def _network(result: dict[str, Any]) -> str:
    """The first identity network of an evaluation, which the figures of a table are of."""
    return str(result["networks"]["identity"][0]["name"])


def _read(result: dict[str, Any], name: str, inputs: int) -> Stat | None:
    """Mean and interval over persons of a figure in `evaluation.json`, of the first identity network.

    None where no person has the figure, such as the pose error when no face was found.
    """
    figures = next(found["figures"] for found in result["results"] if found["inputs"] == inputs)
    stat = figures.get(name) or figures.get(f"{_network(result)}.{name}")
    return None if stat is None else (stat["value"], stat["low"], stat["high"])


def _figure(values: Sequence[Stat], paper: float | None) -> Figure:
    means_Z = np.array([mean for mean, _, _ in values])
    mean = float(means_Z.mean())
    if len(values) == 1:
        _, low, high = values[0]
    else:
        half = t_quantile(len(values) - 1) * float(means_Z.std(ddof=1)) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return Figure(mean, low, high, tuple(means_Z.tolist()), paper)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t; from ten degrees of freedom on that of nine, which is larger."""
    return _T_95[min(degrees, len(_T_95)) - 1]


def markdown(title: str, inputs: Sequence[int], results: Sequence[RowResult]) -> str:
    """The table as Markdown: each figure with its interval, and beside it the paper's.

    Args:
        title: of the table.
        inputs: numbers of input images.
        results: of the rows. A figure that no row has gets no column.
    """
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    columns = [(name, count) for name in names for count in inputs]
    heads = [f"{name.replace('_', ' ')}, {count} input{'s' if count > 1 else ''}" for name, count in columns]
    lines = [
        f"# {title}",
        "",
        "| row | seeds |" + "".join(f" {head} | paper |" for head in heads),
        "|---|---|" + "---|---|" * len(heads),
    ]
    for result in results:
        cells = [f"{result.seeds} of {result.planned}"]
        for name, count in columns:
            figure = result.figures.get(name, {}).get(count)
            cells += ["", ""] if figure is None else _cells(figure, 1 if name == "pose_error" else 3)
        lines.append(f"| {result.label} | " + " | ".join(cells) + " |")
    lines += ["", _note(results)]
    return "\n".join(lines) + "\n"


def _note(results: Sequence[RowResult]) -> str:
    networks = sorted({result.network for result in results if result.network})
    measured = (
        f" Similarity is measured by {', '.join(networks)}, the paper's by ArcFace." if networks else ""
    )
    return (
        "In brackets: 95 % intervals, over seeds where a row has several, else over persons of the evaluation."
        + measured
    )


def _cells(figure: Figure, digits: int) -> list[str]:
    value, low, high = (f"{number:.{digits}f}" for number in (figure.value, figure.low, figure.high))
    return [f"{value} ({low} to {high})", "" if figure.paper is None else f"{figure.paper:g}"]


def write_table(
    plan: Plan, results: Sequence[RowResult], output: Path, facts: dict[str, Any]
) -> tuple[list[Path], str]:
    """Write `<table>.json` and `<table>.md`, and of a figure `<table>.svg` once a row is evaluated.

    Args:
        plan: of the table.
        results: of its rows.
        output: directory.
        facts: what else the file says of the runs: size, seeds, datasets.

    Returns:
        The files, and the Markdown.
    """
    table = plan.table
    document = facts | {
        "table": table.name,
        "title": table.title,
        "rows": [asdict(result) for result in results],
        "evaluations": {row: [job.name for job in jobs] for row, jobs in plan.evaluations.items()},
    }
    text = markdown(table.title, table.inputs, results)
    content = {"json": (json.dumps(document, indent=2) + "\n").encode(), "md": text.encode()}
    if table.x is not None and any(result.figures for result in results):
        content["svg"] = plot_svg(table.title, table.x, results)
    written = []
    for suffix, data in content.items():
        written.append(output / f"{table.name}.{suffix}")
        write_bytes(written[-1], data)
    return written, text
