"""The part's side of `running.py`: options of all parts, and the file that a part writes its result into."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OURS = ("faces", "pipeline", "settings", "shards", "storage", "training", "gpu_parts")
"""Packages of this project: a module of theirs that is missing is a fault, not a package that is not installed."""


class Result:
    """The result of a part, on the disk after every change.

    Args:
        path: of the file.
        seconds: that the part has.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._found: dict[str, Any] = {"figures": {}}
        self._ends_s = time.monotonic() + seconds

    def add(self, **figures: Any) -> None:
        """Add figures."""
        self._found["figures"] |= figures
        self._write()

    @property
    def figures(self) -> dict[str, Any]:
        """The figures so far."""
        return dict(self._found["figures"])

    def end(self, **why: str) -> None:
        """Say why the part ends: `reason`, or `missing_module`."""
        self._found |= why
        self._write()

    def left_s(self) -> float:
        """Seconds until the part is killed."""
        return self._ends_s - time.monotonic()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._found), encoding="utf-8")
        temporary.replace(self._path)


def run(part: Callable[[argparse.Namespace, Result], None], parser: argparse.ArgumentParser) -> None:
    """Run a part as the program that it is; the exit code is 1 when it fails.

    Args:
        part: gets the options and the result.
        parser: with the part's own options.
    """
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    result = Result(options.result, options.seconds)
    try:
        part(options, result)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        module = (error.name or "").partition(".")[0]
        if module in OURS:
            result.end(reason=f"{type(error).__name__}: {error}")
        else:
            result.end(missing_module=module)
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        result.end(reason=_in_a_line(error))
        sys.exit(1)


def rounded(figures: Mapping[str, Any], digits: int = 6) -> dict[str, Any]:
    """Round floats to a number of significant digits; other values are unchanged."""
    return {
        name: float(f"{value:.{digits}g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }


def _in_a_line(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}"
