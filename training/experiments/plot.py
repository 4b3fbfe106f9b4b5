"""The plot of a table: each row's figures with their intervals, over an axis or one row below the other."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from training.experiments.evaluations import SWAP_RATIO
from training.experiments.result import Figure, RowResult

WIDTH, HEIGHT = 5.2, 3.6
"""Of a panel over an axis, in inches."""
ROW_WIDTH, ROW_HEIGHT, AROUND_ROWS = 3.4, 0.45, 1.3
"""Of a panel of rows, of a row, and what title, axis and legend take, in inches."""
SPREAD = 0.4
"""Of the numbers of inputs within a row, of its height."""


def plot_svg(title: str, x_label: str | None, results: Sequence[RowResult]) -> bytes:
    """The plot as SVG: a panel for each figure, a colour for each number of inputs.

    Args:
        title: above it.
        x_label: what the horizontal axis shows, a share from 0 to 1; without it, the rows are below one another.
        results: of the rows, one of them with a figure. Over an axis, those without `x` are not shown.
    """
    import matplotlib as mpl

    encoded = io.BytesIO()
    # The same results give the same bytes, and text stays text.
    with mpl.rc_context({"svg.hashsalt": "omniid", "svg.fonttype": "none"}):
        canvas = _rows(title, results) if x_label is None else _curves(title, x_label, results)
        canvas.savefig(encoded, format="svg", metadata={"Date": None})
    return encoded.getvalue()


def _curves(title: str, x_label: str, results: Sequence[RowResult]) -> Any:
    """Each row is a point over its `x`."""
    from matplotlib.ticker import PercentFormatter

    names = _names(results)
    canvas = _canvas(title, WIDTH * len(names), HEIGHT)
    for panel, name in zip(canvas.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for inputs in _counts(results, name):
            points = sorted(
                (
                    (result.x, figure)
                    for result, figure in _figures(results, name, inputs)
                    if result.x is not None
                ),
                key=lambda point: point[0],
            )
            figures = [figure for _, figure in points]
            marked = panel.errorbar(
                [x for x, _ in points],
                [figure.value for figure in figures],
                yerr=_error_bars(figures),
                marker="o",
                capsize=3,
                color=_colour(results, inputs),
                label=_inputs(inputs),
            ).lines[0]
            marked.set_gid(f"{name}-{inputs}")
        panel.set_xlabel(x_label)
        panel.set_ylabel(_label(name, results))
        panel.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        panel.grid(axis="y", linewidth=0.5, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    return canvas


def _rows(title: str, results: Sequence[RowResult]) -> Any:
    """Each row is a line; small points are its seeds."""
    from matplotlib.ticker import MaxNLocator

    names, shown = _names(results), [result for result in results if result.figures]
    canvas = _canvas(title, ROW_WIDTH * (len(names) + 0.5), ROW_HEIGHT * len(shown) + AROUND_ROWS)
    lines = {result.row: line for line, result in enumerate(shown)}
    panels = canvas.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, names, strict=True):
        counts = _counts(shown, name)
        for place, inputs in enumerate(counts):
            offset = SPREAD * (place / (len(counts) - 1) - 0.5) if len(counts) > 1 else 0.0
            found = list(_figures(shown, name, inputs))
            figures = [figure for _, figure in found]
            heights = [lines[result.row] + offset for result, _ in found]
            marked = panel.errorbar(
                [figure.value for figure in figures],
                heights,
                xerr=_error_bars(figures),
                marker="o",
                linestyle="none",
                capsize=3,
                color=_colour(shown, inputs),
                label=_inputs(inputs),
            ).lines[0]
            marked.set_gid(f"{name}-{inputs}")
            for (result, figure), height in zip(found, heights, strict=True):
                if len(figure.seeds) > 1:
                    seeds = list(figure.seeds.values())
                    (small,) = panel.plot(seeds, [height] * len(seeds), "o", markersize=3, zorder=3)
                    small.set(color="black", alpha=0.4, gid=f"{name}-{inputs}-{result.row}")
        panel.set_xlabel(_label(name, results))
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.grid(axis="x", linewidth=0.5, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(counts))
    panels[0].set_yticks(range(len(shown)), [result.label for result in shown])
    panels[0].invert_yaxis()
    return canvas


def _canvas(title: str, width: float, height: float) -> Any:
    """Matplotlib's `Figure`; not by pyplot, which would look for a display."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    canvas.suptitle(title, fontsize=11)
    return canvas


def _names(results: Sequence[RowResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.figures))


def _counts(results: Sequence[RowResult], name: str) -> list[int]:
    """The numbers of inputs of a figure."""
    return sorted({count for result in results for count in result.figures.get(name, {})})


def _figures(results: Sequence[RowResult], name: str, inputs: int) -> Iterator[tuple[RowResult, Figure]]:
    for result in results:
        figure = result.figures.get(name, {}).get(inputs)
        if figure is not None:
            yield result, figure


def _error_bars(figures: Sequence[Figure]) -> list[list[float]]:
    """Lengths below and above the values; a bootstrap interval need not hold the mean."""
    return [
        [max(0.0, figure.value - figure.low) for figure in figures],
        [max(0.0, figure.high - figure.value) for figure in figures],
    ]


def _colour(results: Sequence[RowResult], inputs: int) -> str:
    """The same in all panels."""
    counts = {count for result in results for figure in result.figures.values() for count in figure}
    return f"C{sorted(counts).index(inputs)}"


def _inputs(count: int) -> str:
    return f"{count} input{'s' if count > 1 else ''}"


def _label(name: str, results: Sequence[RowResult]) -> str:
    """What an axis shows, with the network that measured it."""
    if name == "pose_error":
        return "pose error, degrees"
    if name in {SWAP_RATIO, "faces_found"}:
        return name.replace("_", " ")
    networks = sorted({result.network for result in results if result.network})
    text = "identity similarity" if name == "similarity" else name.replace("_", " ")
    return f"{text} ({', '.join(networks)})"
