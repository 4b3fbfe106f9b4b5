"""How the report's figures look: colours, grid, fonts, and escaped text from the dataset.

The page sets what depends on the reader's light or dark mode; what is set here is legible on both.
"""

from __future__ import annotations

import html

import plotly.graph_objects as go

BLUE, ORANGE, GREEN = "#3d85c6", "#e69f00", "#1b9e77"
STEP_COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
OTHER_COLOUR = "#8a8f98"
"""After Okabe and Ito, distinct to colour-blind readers; no more than seven stay distinct."""
HEAT = [[0, "#414f8a"], [0.33, "#25858e"], [0.67, "#4fc36b"], [1, "#fde725"]]
"""Viridis without its darkest part, which would vanish on a dark page."""
LINE = "rgba(128, 128, 128, 0.9)"
GRID = "rgba(128, 128, 128, 0.25)"
NOTHING = "rgba(0, 0, 0, 0)"


def plain(text: str) -> str:
    """Text as plotly's markup; plotly knows no entity for quotation marks, which need no escape there."""
    return html.escape(text, quote=False)


def styled(
    figure: go.Figure, *, height: int = 340, top: int = 20, left: int = 60, right: int = 20
) -> go.Figure:
    """The figure with the report's look; sizes in pixels."""
    figure.update_layout(
        height=height,
        margin={"l": left, "r": right, "t": top, "b": 55},
        paper_bgcolor=NOTHING,
        plot_bgcolor=NOTHING,
        font={"family": "system-ui, sans-serif", "size": 13},
        # Upright, so that the buttons that appear under the pointer do not cover the legend.
        modebar={"orientation": "v", "bgcolor": NOTHING, "color": LINE, "activecolor": BLUE},
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
            tickcolor=NOTHING,
            tickangle=0,
            title_standoff=10,
            title_font_size=13,
        )
    return figure
