"""`mfhq explain`: its output as text, JSON and a page."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import BuildError
from pipeline.explain.explanation import Explanation, explain
from pipeline.explain.text import as_text
from shards.atomic import OutOfSpace
from storage.path import AnyPath


def explain_video(
    output: AnyPath, video: str, *, html: Path | None, as_json: bool, source: AnyPath | None = None
) -> str:
    """Explain a video.

    Args:
        output: output directory of a build.
        video: its id, path, name or sample key.
        html: where to write the page; none is written when None.
        as_json: return JSON in place of text.
        source: directory that contains the videos now.

    Returns:
        What to print.

    Raises:
        BuildError: the video cannot be explained, or the page cannot be written.
        DatasetError: the dataset's tables cannot be read.
        OutOfSpace: the disk is full.
    """
    found = explain(output, video, source)
    if html is not None:
        from pipeline.explain.page import write_page  # decoders and the template engine are slow to import

        try:
            write_page(found, html)
        except OutOfSpace:
            raise
        except OSError as error:
            raise BuildError(
                f"--html {html} cannot be written: {error.strerror}. Give another file"
            ) from error
    if as_json:
        return json.dumps(as_value(found), indent=2, ensure_ascii=False)
    page = f"\npage       {html}" if html else "\n--html FILE writes this with figures and images"
    return f"{as_text(found)}\n{page}"


def as_value(found: Explanation) -> dict[str, object]:
    """The explanation as plain values, without images."""
    return {
        "outcome": found.outcome.model_dump(mode="json"),
        "settings": found.settings,
        "notes": found.notes,
        "file": str(found.file) if found.file else None,
        "timeline": found.timeline.model_dump(mode="json") if found.whole else None,
        "chosen": [face.model_dump(mode="json") for face in found.timeline.faces if face.chosen],
    }
