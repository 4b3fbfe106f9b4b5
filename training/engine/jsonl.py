"""The figures of a run as lines of JSON, `metrics.jsonl`, for notebooks and for comparisons of runs.

A run that was killed and resumes from a checkpoint repeats the steps since then. So the file is first truncated
to that checkpoint, and ends up with the lines of an uninterrupted run. JSON has no NaN and no infinity: they are
written as the strings "NaN", "Infinity" and "-Infinity", which `float()` reads.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.atomic import OutOfSpace, open_atomic


class JsonLines:
    """Appends one line a call, flushed to the disk.

    Args:
        path: the file; its directory is created when it is missing.
        start_step: where the run resumes; lines past it are removed, at 0 all of them.
        repeated: prefix of the figures of `start_step` that are logged again; lines with them are removed too.
    """

    def __init__(self, path: Path, start_step: int, repeated: str | None = None) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.tmp-*"):
            leftover.unlink()
        _truncate(path, start_step, repeated)
        # Not buffered: a write that failed on a full disk must not be repeated when the file is closed.
        self._file = path.open("ab", buffering=0)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line.

        Raises:
            OutOfSpace: the disk or the quota is full.
        """
        line = {"step": step} | {name: _as_json(value) for name, value in values.items()}
        left = json.dumps(line, allow_nan=False).encode() + b"\n"
        with as_out_of_space(self._path):
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file in order, each with its `step`; ignores a last line that is cut off."""
    return [
        {name: value if name == "step" else float(value) for name, value in line.items()}
        for _, line in _lines(path)
    ]


@contextmanager
def as_out_of_space(path: Path) -> Iterator[None]:
    """Turn the error of a full disk, while `path` is written, into an `OutOfSpace` with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or isinstance(error, OutOfSpace):
            raise
        raise OutOfSpace(path, shutil.disk_usage(path.parent).free, error.errno) from error


def _truncate(path: Path, start_step: int, repeated: str | None) -> None:
    """Keep the complete lines up to `start_step`, without those that are logged again."""
    if not path.exists():
        return

    def stays(line: dict[str, Any]) -> bool:
        again = repeated is not None and any(name.startswith(repeated) for name in line)
        return start_step > 0 and (line["step"] < start_step or (line["step"] == start_step and not again))

    kept = [text for text, line in _lines(path) if stays(line)]
    with open_atomic(path) as file:
        file.writelines(kept)


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The complete lines. A kill can leave part of a line, a power cut a run of zeros."""
    whole = []
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if text.endswith(b"\n") and isinstance(line, dict) and isinstance(line.get("step"), int):
            whole.append((text, line))
    return whole


def _as_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
