"""The figures on videos and images: plotly figures made from counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from pipeline.report.distributions import Histogram, PoseMap
from pipeline.report.figure_style import BLUE, GREEN, HEAT, LINE, ORANGE, plain, styled
from pipeline.report.outcomes import Gate
from pipeline.report.quantiles import Values

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
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title="videos left", tickformat=",d", rangemode="tozero", nticks=6)
    return styled(figure, height=80 + 40 * len(left), right=40)


def distribution(
    found: Histogram, axis: str, *, marks: Sequence[tuple[float, str]] = (), unit: str = "images"
) -> go.Figure:
    """A histogram with its median, and lines at the values that matter."""
    figure = go.Figure(_bars(found, BLUE, unit))
    lines = [(found.quantiles[2], f"median {found.quantiles[2]:,.3g}", "solid")]
    lines += [(value, label, "dash") for value, label in marks]
    for place, (value, label, dash) in enumerate(sorted(lines)):
        figure.add_vline(x=value, line={"color": LINE, "width": 1.5, "dash": dash})
        # Staggered, so that the labels of neighbouring lines do not overlap.
        figure.add_annotation(
            x=value,
            y=1.01 + 0.08 * place,
            yref="paper",
            text=plain(label),
            showarrow=False,
            yanchor="bottom",
            font={"size": 12},
        )
    figure.update_xaxes(title=plain(axis))
    figure.update_yaxes(title=unit, tickformat=",d", rangemode="tozero")
    figure.update_layout(bargap=0)
    return styled(figure, top=30 + 18 * len(lines))


def overlaid(parts: Sequence[tuple[str, Histogram]], axis: str, unit: str) -> go.Figure:
    """Several histograms of the same bins as outlines, distinguished by colour and dash."""
    figure = go.Figure()
    for (name, found), colour, dash in zip(
        parts, (BLUE, ORANGE, GREEN), ("solid", "dash", "dot"), strict=False
    ):
        counts = found.counts.tolist()
        figure.add_scatter(
            x=[found.edges[0], *found.edges.tolist()],
            y=[0, *counts, 0],
            name=plain(f"{name} (median {found.quantiles[2]:.1f})"),
            line={"shape": "hv", "color": colour, "dash": dash, "width": 2},
            mode="lines",
            fill="tozeroy" if dash == "solid" else "none",
            hovertemplate="from %{x}°: %{y:,}<extra>" + plain(name) + "</extra>",
        )
    figure.update_xaxes(title=plain(axis), rangemode="tozero")
    figure.update_yaxes(title=unit, tickformat=",d", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0})
    return styled(figure, top=50)


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
    return styled(figure, height=520)


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
