"""Small charts as inline SVG: a figure with its interval against the number of inputs.

Not plotly, which the pipeline's report uses: it is no dependency of the trainer, and would make the page 4.8 MB
larger for a few points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 60, 12, 38
COLOURS = ("#3d85c6", "#e69f00", "#1b9e77", "#cc79a7", "#d55e00", "#56b4e9")
"""After Okabe and Ito, distinct to colour-blind readers."""


@dataclass(frozen=True)
class Point:
    """A mean with its interval."""

    inputs: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """The points of a source."""

    name: str
    points: list[Point]


def chart(series: Sequence[Series], levels: Sequence[tuple[str, float]]) -> Markup:
    """Points with intervals, and reference levels as dashed lines.

    Args:
        series: with a point at least; those beyond the sixth repeat colours.
        levels: name and value.
    """
    points = [point for one in series for point in one.points]
    values = [bound for point in points for bound in (point.low, point.high)] + [value for _, value in levels]
    if not points:
        return Markup("")
    low, high = min(0.0, *values), max(0.0, *values)
    high = high if high > low else low + 1
    steps = sorted({point.inputs for point in points})

    def x(inputs: int, shift: float = 0.0) -> float:
        place = (steps.index(inputs) + 0.5) / len(steps)
        return LEFT + place * (WIDTH - LEFT - RIGHT) + shift

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick in ticks(low, high)
    ]
    parts += [f'<text x="{x(k):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{k}</text>' for k in steps]
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 5}" text-anchor="middle">input images</text>'
    )
    for name, value in levels:
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="level"/>'
            f'<text x="{WIDTH - RIGHT + 5}" y="{y(value) + 4:.1f}">{escape(name)}</text>'
        )
    for place, one in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        shift = 9 * (place - (len(series) - 1) / 2)
        for point in one.points:
            at = x(point.inputs, shift)
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(point.low):.1f}" y2="{y(point.high):.1f}" '
                f'stroke="{colour}" stroke-width="2"/>'
                f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="4" fill="{colour}">'
                f"<title>{escape(one.name)}, {point.inputs} inputs: {point.value:.3f}</title></circle>"
            )
    return Markup(  # noqa: S704 - all text in it is escaped
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds, three to nine of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / 8))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= 8)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "0"
