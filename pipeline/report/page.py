"""Turns the report's content into one HTML file without any dependency.

The template engine escapes all text. A content security policy forbids every request and every script
but the two of the page itself, so that no content of a dataset could run or call home even if it got through.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.report.reasons import meaning

TEMPLATE = Path(__file__).parent / "template"
LONGEST_TEXT = 300


def render(content: Mapping[str, Any], figures: Mapping[str, dict[str, Any]]) -> str:
    """The page.

    Args:
        content: what the template names.
        figures: plotly figures as plain values, by the id of their element.
    """
    from plotly.offline import get_plotlyjs

    environment = template_environment(TEMPLATE)
    environment.filters |= {"count": count, "share": share, "width": width, "figure": figure}
    plotly, script = get_plotlyjs(), (TEMPLATE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        content,
        figures=figures,
        figures_json=script_safe_json(figures),
        plotly=Markup(plotly),  # noqa: S704 - plotly's own file
        script=Markup(script),  # noqa: S704 - ours
        style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        policy=content_security_policy([plotly, script]),
    )


def template_environment(folder: Path) -> jinja2.Environment:
    """The template engine of the project's pages: escapes all text, and fails on a name that has no value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"degrees": degrees, "clip": clip, "meaning": meaning}
    return environment


def content_security_policy(scripts: list[str]) -> str:
    """A policy that allows these inline scripts, inline styles and data images, and forbids the rest."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'"
    )


def script_safe_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no character of it can end the element.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def share(part: float, whole: float) -> str:
    """A part in per cent; small ones keep a digit that is not 0."""
    if not whole:
        return "\N{EN DASH}"
    percent = 100 * part / whole
    return f"{percent:.1f}%" if percent >= 0.1 or percent == 0 else f"{percent:.1g}%"


def width(part: float, whole: float) -> str:
    """A part in per cent, for a style attribute."""
    return f"{100 * part / whole:.2f}" if whole else "0"


def figure(value: float) -> str:
    """A measured number to three digits, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def degrees(value: float) -> str:
    """A signed angle."""
    rounded = round(value)
    sign = "\N{MINUS SIGN}" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded)}°"


def clip(text: str) -> str:
    """A text that does not fill the page."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"
