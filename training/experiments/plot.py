"""The plot of a table: each row's figures with their intervals, over an axis or one row below the other."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.experiments.evaluations import SWAP_RATIO
from training.experiments.result import Figure, RowResult

WIDTH, HEIGHT = 5.2, 3.9
"""Of a panel over an axis, in inches."""
ROW_WIDTH, ROW_HEIGHT, AROUND_ROWS = 3.4, 0.45, 1.6
"""Of a panel of rows, of a row, and what title, axis and notes take, in inches."""
LEGEND_WIDTH = 0.8
"""In inches."""
TITLE_CHARACTERS, NOTE_CHARACTERS = 11, 16
"""Of title and note, that an inch holds."""
ROW_SPREAD, AXIS_SPREAD = 0.4, 0.02
"""Share of a row's height and of the axis over which numbers of inputs are spread, so that bars do not overlap."""
NOTE = (
    "Filled points: means of several seeds (small points), with 95 % intervals over seeds. "
    "Hollow points: one seed, with 95 % intervals over persons"
)


@dataclass(frozen=True)
class _Point:
    """A figure of a row, and where the row stands."""

    row: str
    place: float
    figure: Figure


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

    places = {result.row: result.x for result in results if result.x is not None}
    shown = sorted((result for result in results if result.row in places), key=lambda each: places[each.row])
    names = _names(shown)
    canvas = _canvas(title, WIDTH * len(names), HEIGHT)
    for panel, name in zip(canvas.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for inputs, points in _points(shown, name, places, AXIS_SPREAD):
            panel.plot(
                [p.place for p in points], [p.figure.value for p in points], color=_colour(shown, inputs)
            )
            _draw(panel, name, inputs, points, _colour(shown, inputs), upright=True)
        panel.set_xlabel(x_label)
        panel.set_ylabel(_label(name, shown))
        panel.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        panel.grid(axis="y", linewidth=0.5, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    _add_legend(canvas)
    return canvas


def _rows(title: str, results: Sequence[RowResult]) -> Any:
    """Each row is a line, the first on top."""
    from matplotlib.ticker import MaxNLocator

    shown = [result for result in results if result.figures]
    places = {result.row: float(line) for line, result in enumerate(shown)}
    names = _names(shown)
    canvas = _canvas(title, ROW_WIDTH * (len(names) + 0.5), ROW_HEIGHT * len(shown) + AROUND_ROWS)
    panels = canvas.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, names, strict=True):
        for inputs, points in _points(shown, name, places, ROW_SPREAD):
            _draw(panel, name, inputs, points, _colour(shown, inputs), upright=False)
        panel.set_xlabel(_label(name, shown))
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.grid(axis="x", linewidth=0.5, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(shown)), [result.label for result in shown])
    panels[0].set_ylim(len(shown) - 0.5, -0.5)
    _add_legend(canvas)
    return canvas


def _draw(
    panel: Any, name: str, inputs: int, points: Sequence[_Point], colour: str, *, upright: bool
) -> None:
    """Draw the points of a number of inputs with their bars and seeds.

    Args:
        panel: matplotlib's axes.
        name: of the figure.
        inputs: their number.
        points: of the rows.
        colour: of the points.
        upright: whether values are over places; else places are above one another.
    """

    def at(values: Sequence[float], places: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
        return (places, values) if upright else (values, places)

    values, places = [point.figure.value for point in points], [point.place for point in points]
    # A bootstrap interval need not hold the mean.
    below = [max(0.0, point.figure.value - point.figure.low) for point in points]
    above = [max(0.0, point.figure.high - point.figure.value) for point in points]
    bars = {"yerr" if upright else "xerr": [below, above]}
    drawn = panel.errorbar(*at(values, places), **bars, fmt="o", capsize=3, color=colour, label=str(inputs))
    drawn.lines[0].set_gid(f"{name}-{inputs}")
    for point in points:
        seeds = list(point.figure.seeds.values())
        if len(seeds) > 1:
            style = {"color": "black", "alpha": 0.4, "gid": f"{name}-{inputs}-{point.row}"}
        else:
            seeds, style = [point.figure.value], {"color": "white"}
        panel.plot(*at(seeds, [point.place] * len(seeds)), "o", markersize=3, zorder=3, **style)


def _canvas(title: str, width: float, height: float) -> Any:
    """Matplotlib's `Figure`; not by pyplot, which would look for a display."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    # The layout makes room for lines of text, but not for their width.
    # The title is centred and the legend is at the right: leave its width free on both sides.
    canvas.suptitle(textwrap.fill(title, int(TITLE_CHARACTERS * (width - 2 * LEGEND_WIDTH))), fontsize=11)
    canvas.supxlabel(textwrap.fill(NOTE, int(NOTE_CHARACTERS * width)), fontsize=8)
    return canvas


def _add_legend(canvas: Any) -> None:
    """One for all panels, whose colours are the same."""
    entries: dict[str, Any] = {}
    for panel in canvas.axes:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    names = sorted(entries, key=int)
    canvas.legend(
        [entries[name] for name in names], names, loc="outside right upper", frameon=False, title="inputs"
    )


def _names(results: Sequence[RowResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.figures))


def _points(
    results: Sequence[RowResult], name: str, places: Mapping[str, float], spread: float
) -> Iterator[tuple[int, list[_Point]]]:
    """The points of a figure for each number of inputs, which are spread around the place of their row."""
    counts = sorted({count for result in results for count in result.figures.get(name, {})})
    for number, inputs in enumerate(counts):
        shift = spread * (number / (len(counts) - 1) - 0.5) if len(counts) > 1 else 0.0
        yield (
            inputs,
            [
                _Point(result.row, places[result.row] + shift, result.figures[name][inputs])
                for result in results
                if inputs in result.figures.get(name, {})
            ],
        )


def _colour(results: Sequence[RowResult], inputs: int) -> str:
    """The same in all panels."""
    counts = {count for result in results for figure in result.figures.values() for count in figure}
    return f"C{sorted(counts).index(inputs)}"


def _label(name: str, results: Sequence[RowResult]) -> str:
    """What an axis shows, with the network that measured it."""
    if name == "pose_error":
        return "pose error, degrees"
    if name in {SWAP_RATIO, "faces_found"}:
        return name.replace("_", " ")
    networks = sorted({result.network for result in results if result.network})
    text = "identity similarity" if name == "similarity" else name.replace("_", " ")
    return f"{text} ({', '.join(networks)})"
