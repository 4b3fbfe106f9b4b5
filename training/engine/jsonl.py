"""The run's figures as lines of JSON, `metrics.jsonl`: what notebooks read and what two runs are compared by.

A run that was killed and goes on from a checkpoint repeats the steps since then. The file is therefore cut back
to that checkpoint first, so that it ends up with the lines of a run that was never disturbed. JSON has no
numbers for "not a number" and infinity; they are written as the strings "NaN", "Infinity" and "-Infinity", which
`float()` reads, because null would not say which of them it was.
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
    """Appends one line a call; what was appended outlives the process and the machine.

    Args:
        path: the file; its folder is made when it is missing.
        start_step: where the run goes on; lines past it are removed, at 0 all of them.
        repeated: what the names of figures begin with that come again for that step; lines with them go as well.
    """

    def __init__(self, path: Path, start_step: int, repeated: str | None = None) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.tmp-*"):
            leftover.unlink()
        _cut_back(path, start_step, repeated)
        # Not buffered: what a full disk refused must not be tried again when the file is closed.
        self._file = path.open("ab", buffering=0)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line.

        Raises:
            OutOfSpace: the disk or the quota is full.
        """
        line = {"step": step} | {name: _as_json(value) for name, value in values.items()}
        left = json.dumps(line, allow_nan=False).encode() + b"\n"
        with out_of_space_in_words(self._path):
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file in order, each with its `step`; a last line cut off by a kill is left out."""
    return [
        {name: value if name == "step" else float(value) for name, value in line.items()}
        for _, line in _lines(path)
    ]


@contextmanager
def out_of_space_in_words(path: Path) -> Iterator[None]:
    """Turn the error of a full disk, met while writing `path`, into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or isinstance(error, OutOfSpace):
            raise
        raise OutOfSpace(path, shutil.disk_usage(path.parent).free, error.errno) from error


def _cut_back(path: Path, start_step: int, repeated: str | None) -> None:
    """Keep the lines up to `start_step`, and of those only what is whole and does not come again."""
    if not path.exists():
        return

    def stays(line: dict[str, Any]) -> bool:
        again = repeated is not None and any(name.startswith(repeated) for name in line)
        return start_step > 0 and (line["step"] < start_step or (line["step"] == start_step and not again))

    kept = [text for text, line in _lines(path) if stays(line)]
    with open_atomic(path) as file:
        file.writelines(kept)


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines that are whole. A kill can leave part of a line, a power cut a stretch of zeros."""
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
