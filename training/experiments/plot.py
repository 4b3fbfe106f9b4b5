"""The plot of a figure of the paper: each row is a point with its interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from training.experiments.evaluations import SWAP_RATIO
from training.experiments.result import Figure, RowResult

WIDTH, HEIGHT = 5.2, 3.6
"""Of a panel, in inches."""


def plot_svg(title: str, x_label: str, results: Sequence[RowResult]) -> bytes:
    """The plot as SVG.

    Args:
        title: above it.
        x_label: what the horizontal axis shows: a share, from 0 to 1.
        results: of the rows, one of them with a figure; those without `x` are not shown.
    """
    import matplotlib as mpl

    encoded = io.BytesIO()
    # The same results give the same bytes, and text stays text.
    with mpl.rc_context({"svg.hashsalt": "omniid", "svg.fonttype": "none"}):
        plotted(title, x_label, results).savefig(encoded, format="svg", metadata={"Date": None})
    return encoded.getvalue()


def plotted(title: str, x_label: str, results: Sequence[RowResult]) -> Any:
    """The same as matplotlib's `Figure`: a panel for each figure, a line for each number of inputs.

    Not by pyplot, which would look for a display.
    """
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import PercentFormatter

    names = list(dict.fromkeys(name for result in results for name in result.figures))
    canvas = Canvas(figsize=(WIDTH * len(names), HEIGHT), layout="constrained")
    canvas.suptitle(title, fontsize=11)
    for panel, name in zip(canvas.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for inputs, points in _lines(results, name).items():
            values = [figure.value for _, figure in points]
            marked = panel.errorbar(
                [x for x, _ in points],
                values,
                yerr=[
                    # A bootstrap interval need not hold the mean.
                    [max(0.0, figure.value - figure.low) for _, figure in points],
                    [max(0.0, figure.high - figure.value) for _, figure in points],
                ],
                marker="o",
                capsize=3,
                label=f"{inputs} input{'s' if inputs > 1 else ''}",
            ).lines[0]
            marked.set_gid(f"{name}-{inputs}")
        panel.set_xlabel(x_label)
        panel.set_ylabel(_label(name, results))
        panel.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        panel.grid(axis="y", linewidth=0.5, alpha=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    return canvas


def _lines(results: Sequence[RowResult], name: str) -> dict[int, list[tuple[float, Figure]]]:
    """The points of a figure from left to right, by number of inputs."""
    found: dict[int, list[tuple[float, Figure]]] = {}
    for result in results:
        for inputs, figure in result.figures.get(name, {}).items():
            if result.x is not None:
                found.setdefault(inputs, []).append((result.x, figure))
    return {inputs: sorted(points, key=lambda point: point[0]) for inputs, points in sorted(found.items())}


def _label(name: str, results: Sequence[RowResult]) -> str:
    """What the vertical axis shows, with the network that measured it."""
    if name == "pose_error":
        return "pose error, degrees"
    if name == SWAP_RATIO:
        return "swap ratio"
    networks = sorted({result.network for result in results if result.network})
    text = "identity similarity" if name == "similarity" else name.replace("_", " ")
    return f"{text} ({', '.join(networks)})"
