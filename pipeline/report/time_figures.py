"""The figures on the time of a build."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from pipeline.report.figure_style import BLUE, OTHER_COLOUR, STEP_COLOURS, plain, styled
from pipeline.report.quantiles import Values
from pipeline.report.timings import Timings


def step_times(times: Timings) -> go.Figure:
    """Total time of each step, as a part of the whole."""
    totals = times.totals
    whole = totals.sum() or 1.0
    figure = go.Figure(
        go.Bar(
            x=totals.tolist(),
            y=[plain(step) for step in times.steps],
            orientation="h",
            text=[f"{total / whole:.1%}" for total in totals],
            textposition="outside",
            cliponaxis=False,
            marker_color=BLUE,
            hovertemplate="%{y}: %{x:,.1f} s<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title="seconds, all videos together", rangemode="tozero")
    return styled(figure, height=90 + 30 * len(times.steps), right=50)


def slowest_videos(times: Timings, names: dict[str, str]) -> go.Figure:
    """The slowest videos, their time stacked by step.

    Args:
        times: of all videos.
        names: how each of the slowest is called on the page.
    """
    count = len(times.slowest)
    figure = go.Figure()
    for step, what, spent, colour in _largest_steps(times):
        figure.add_bar(
            x=np.round(spent, 3).tolist(),
            # By position, not by name: two videos may have the same name.
            y=list(range(count)),
            name=plain(step),
            orientation="h",
            marker_color=colour,
            hovertemplate="%{x:,.2f} s<extra>" + plain(what) + "</extra>",
        )
    for place, video in enumerate(times.slowest):
        # Above the bar, because names beside the bars would leave no room for them on a narrow screen.
        figure.add_annotation(
            x=0,
            y=place,
            xanchor="left",
            yanchor="bottom",
            yshift=7,
            text=plain(_short(names[video])),
            showarrow=False,
            font={"size": 12},
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.6,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
    )
    figure.update_yaxes(range=[count - 0.6, -0.9], showticklabels=False, showgrid=False, zeroline=False)
    figure.update_xaxes(title="seconds", rangemode="tozero", nticks=8)
    return styled(figure, height=150 + 36 * count, top=70, left=10)


def _largest_steps(times: Timings) -> list[tuple[str, str, Values, str]]:
    """The steps that take most of the time, and all others together.

    Returns:
        For each: name, names of all steps in it, (K,) seconds of the slowest videos, colour.
    """
    largest = set(np.argsort(-times.totals, kind="stable")[: len(STEP_COLOURS)].tolist())
    shown = [place for place in range(len(times.steps)) if place in largest]
    parts = [
        (times.steps[place], times.steps[place], times.slowest_s[:, place], colour)
        for place, colour in zip(shown, STEP_COLOURS, strict=False)
    ]
    rest = [place for place in range(len(times.steps)) if place not in largest]
    if rest:
        names = ", ".join(times.steps[place] for place in rest)
        parts.append(("other steps", names, times.slowest_s[:, rest].sum(axis=1), OTHER_COLOUR))
    return parts


def _short(name: str, length: int = 48) -> str:
    """The end of a long name, which distinguishes files better than its start."""
    return name if len(name) <= length else "\N{HORIZONTAL ELLIPSIS}" + name[-length:]
