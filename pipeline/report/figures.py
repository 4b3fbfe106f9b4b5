"""The report's figures: plotly figures made from counts.

Colours, fonts and backgrounds that depend on the reader's light or dark mode are set in the page; what is set
here is legible on both. All text from the data set is escaped, because plotly reads labels as markup.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from pipeline.report.distributions import Histogram, PoseMap, Values
from pipeline.report.outcomes import Gate
from pipeline.report.timings import Timings

BLUE, ORANGE, GREEN = "#3d85c6", "#e69f00", "#1b9e77"
STEP_COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
OTHER_COLOUR = "#8a8f98"
"""After Okabe and Ito, told apart by colour-blind readers; seven are the most that stay apart."""
GRID = "rgba(128, 128, 128, 0.25)"
LINE = "rgba(128, 128, 128, 0.9)"
SLOWEST = 15
HEAT = [[0, "#414f8a"], [0.33, "#25858e"], [0.67, "#4fc36b"], [1, "#fde725"]]
"""Viridis without its darkest part, which would vanish on a dark page."""
LOG_COUNTS_FROM = 100
"""Colours of the pose map are logarithmic when its fullest square holds more images."""


def funnel(gates: Sequence[Gate], videos: int) -> go.Figure:
    """Videos left after each gate."""
    labels = ["all videos", *(gate.name for gate in gates)]
    left = [videos, *(gate.left for gate in gates)]
    share = [f"{count:,}  ({count / videos:.1%})" if videos else "0" for count in left]
    figure = go.Figure(
        go.Bar(
            x=left,
            y=labels,
            orientation="h",
            text=share,
            textposition="auto",
            insidetextanchor="start",
            cliponaxis=False,
            marker_color=[*[BLUE] * (len(left) - 1), GREEN],
            hovertemplate="%{y}: %{x:,} videos<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="videos left", tickformat=",d", rangemode="tozero", nticks=6)
    return _styled(figure, height=80 + 40 * len(left), right=40)


def distribution(
    found: Histogram, axis: str, *, marks: Sequence[tuple[float, str]] = (), unit: str = "images"
) -> go.Figure:
    """A histogram with its median, and lines at the values that matter."""
    figure = go.Figure(_bars(found, BLUE, unit))
    lines = [(found.quantiles[2], f"median {found.quantiles[2]:,.3g}", "solid")]
    lines += [(value, label, "dash") for value, label in marks]
    for place, (value, label, dash) in enumerate(sorted(lines)):
        figure.add_vline(x=value, line={"color": LINE, "width": 1.5, "dash": dash})
        # Staggered, so that the labels of neighbouring lines do not lie on each other.
        figure.add_annotation(
            x=value,
            y=1.01 + 0.08 * place,
            yref="paper",
            text=_text(label),
            showarrow=False,
            yanchor="bottom",
            font={"size": 12},
        )
    figure.update_xaxes(title=_text(axis))
    figure.update_yaxes(title=unit, tickformat=",d", rangemode="tozero")
    figure.update_layout(bargap=0)
    return _styled(figure, top=30 + 18 * len(lines))


def overlaid(parts: Sequence[tuple[str, Histogram]], axis: str, unit: str) -> go.Figure:
    """Several histograms of the same bins as outlines, told apart by colour and dash."""
    figure = go.Figure()
    for (name, found), colour, dash in zip(
        parts, (BLUE, ORANGE, GREEN), ("solid", "dash", "dot"), strict=False
    ):
        counts = found.counts.tolist()
        figure.add_scatter(
            x=[found.edges[0], *found.edges.tolist()],
            y=[0, *counts, 0],
            name=_text(f"{name} (median {found.quantiles[2]:.1f})"),
            line={"shape": "hv", "color": colour, "dash": dash, "width": 2},
            mode="lines",
            fill="tozeroy" if dash == "solid" else "none",
            hovertemplate="from %{x}°: %{y:,}<extra>" + _text(name) + "</extra>",
        )
    figure.update_xaxes(title=_text(axis), rangemode="tozero")
    figure.update_yaxes(title=unit, tickformat=",d", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0})
    return _styled(figure, top=50)


def poses(found: PoseMap) -> go.Figure:
    """Images by yaw and pitch, with the sums over rows and columns beside the map."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2,
        cols=2,
        column_widths=[0.84, 0.16],
        row_heights=[0.18, 0.82],
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.015,
        vertical_spacing=0.02,
    )
    yaw, pitch = _centres(found.yaw_edges), _centres(found.pitch_edges)
    counts = found.counts.astype(float)
    highest = counts.max(initial=0)
    logarithmic = highest > LOG_COUNTS_FROM
    with np.errstate(divide="ignore"):
        shade = np.log10(counts) if logarithmic else counts
    ticks = [10**power for power in range(int(np.log10(highest)) + 1)] if logarithmic else None
    figure.add_heatmap(
        row=2,
        col=1,
        x=yaw,
        y=pitch,
        z=[
            [None if count == 0 else value for value, count in zip(*row, strict=True)]
            for row in zip(shade.tolist(), found.counts.tolist(), strict=True)
        ],
        customdata=found.counts.tolist(),
        zmin=0,
        colorscale=HEAT,
        colorbar={
            "title": "images",
            "thickness": 12,
            "outlinewidth": 0,
            "len": 0.8,
            "y": 0.4,
            **(
                {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{t:,}" for t in ticks]} if ticks else {}
            ),
        },
        hovertemplate="yaw %{x}°, pitch %{y}° (centre): %{customdata:,} images<extra></extra>",
    )
    figure.add_bar(
        row=1,
        col=1,
        x=yaw,
        y=found.counts.sum(axis=0).tolist(),
        marker_color=BLUE,
        hovertemplate="yaw %{x}°: %{y:,} images<extra></extra>",
    )
    figure.add_bar(
        row=2,
        col=2,
        y=pitch,
        x=found.counts.sum(axis=1).tolist(),
        marker_color=BLUE,
        orientation="h",
        hovertemplate="pitch %{y}°: %{x:,} images<extra></extra>",
    )
    figure.update_xaxes(
        row=2,
        col=1,
        title="yaw, degrees (\N{MINUS SIGN} left, + right)",
    )
    figure.update_yaxes(row=2, col=1, title="pitch, degrees (\N{MINUS SIGN} down, + up)")
    figure.update_xaxes(row=2, col=2, showticklabels=False, showgrid=False)
    figure.update_yaxes(row=1, col=1, showticklabels=False, showgrid=False)
    figure.update_layout(bargap=0.05, showlegend=False)
    return _styled(figure, height=520)


def step_times(times: Timings) -> go.Figure:
    """Total time of each step, with its share."""
    totals = times.totals
    whole = totals.sum() or 1.0
    figure = go.Figure(
        go.Bar(
            x=totals.tolist(),
            y=[_text(step) for step in times.steps],
            orientation="h",
            text=[f"{total / whole:.1%}" for total in totals],
            textposition="outside",
            cliponaxis=False,
            marker_color=BLUE,
            hovertemplate="%{y}: %{x:,.1f} s<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="seconds, all videos together", rangemode="tozero")
    return _styled(figure, height=90 + 30 * len(times.steps), right=50)


def slowest_videos(times: Timings, names: dict[str, str]) -> go.Figure:
    """The slowest videos, their time stacked by step.

    Args:
        times: of all videos.
        names: how each video is called on the page.
    """
    rows = times.slowest(SLOWEST)
    figure = go.Figure()
    for step, what, spent, colour in _largest_steps(times):
        figure.add_bar(
            x=np.round(spent[rows], 3).tolist(),
            # By place, not by name: two videos may be called the same.
            y=list(range(len(rows))),
            name=_text(step),
            orientation="h",
            marker_color=colour,
            hovertemplate="%{x:,.2f} s<extra>" + _text(what) + "</extra>",
        )
    for place, row in enumerate(rows.tolist()):
        # Above the bar, because names beside the bars would leave no room for them on a narrow screen.
        figure.add_annotation(
            x=0,
            y=place,
            xanchor="left",
            yanchor="bottom",
            yshift=6,
            text=_text(_short(names[times.videos[row]])),
            showarrow=False,
            font={"size": 12},
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.6,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
    )
    figure.update_yaxes(range=[len(rows) - 0.6, -0.9], showticklabels=False, showgrid=False, zeroline=False)
    figure.update_xaxes(title="seconds", rangemode="tozero", nticks=8)
    return _styled(figure, height=150 + 36 * len(rows), top=70)


def _largest_steps(times: Timings) -> list[tuple[str, str, Values, str]]:
    """The steps that take most of the time, and all others together.

    Returns:
        For each: name, names of all steps in it, (V,) seconds, colour.
    """
    largest = set(np.argsort(-times.totals, kind="stable")[: len(STEP_COLOURS)].tolist())
    shown = [place for place in range(len(times.steps)) if place in largest]
    parts = [
        (times.steps[place], times.steps[place], times.seconds[:, place], colour)
        for place, colour in zip(shown, STEP_COLOURS, strict=False)
    ]
    rest = [place for place in range(len(times.steps)) if place not in largest]
    if rest:
        names = ", ".join(times.steps[place] for place in rest)
        parts.append(("other steps", names, times.seconds[:, rest].sum(axis=1), OTHER_COLOUR))
    return parts


def _bars(found: Histogram, colour: str, unit: str) -> go.Bar:
    edges = found.edges
    return go.Bar(
        x=_centres(edges),
        y=found.counts.tolist(),
        width=np.diff(edges).tolist(),
        customdata=[[f"{low:,g}", f"{high:,g}"] for low, high in pairwise(edges)],
        marker={"color": colour, "line": {"width": 0}},
        hovertemplate="%{customdata[0]} to %{customdata[1]}: %{y:,} " + unit + "<extra></extra>",
    )


def _centres(edges: Values) -> list[float]:
    centres: list[float] = np.round((edges[:-1] + edges[1:]) / 2, 10).tolist()
    return centres


def _short(name: str, length: int = 48) -> str:
    """The end of a long name, which tells files apart better than its start."""
    return name if len(name) <= length else "\N{HORIZONTAL ELLIPSIS}" + name[-length:]


def _text(text: str) -> str:
    """Text as plotly's markup; plotly knows no entity for quotation marks, which mean nothing there."""
    return html.escape(text, quote=False)


def _styled(figure: go.Figure, *, height: int = 340, top: int = 20, right: int = 20) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": right, "t": top, "b": 55},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        template="none",
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(
            gridcolor=GRID,
            zerolinecolor=GRID,
            automargin=True,
            # Ticks without a colour keep the labels off the bars.
            ticks="outside",
            ticklen=5,
            tickcolor="rgba(0,0,0,0)",
            tickangle=0,
            title_standoff=10,
            title_font_size=13,
        )
    return figure
