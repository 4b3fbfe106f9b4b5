"""How long does `mfhq plan` take, and how much memory, with ten times the rows?

    python benchmarks/planning.py [--rows 60000 600000] [--folder DIR]

Makes two sources of each size in a temporary directory, of sparse files, and plans each in its own process:

| row | what |
|---|---|
| clips | TalkingHead-1KH's list of tubes, a line for each row, and a chunk for every ten; a tenth has none |
| files | a plain folder with one file for each row, a thousand in a directory |
| flat | the same files, all in one directory |

The limits are those that the project asks of 600,000 rows: five minutes, and memory that does not grow with them
(less than GROWTH_MB from the smaller size to the larger). The counts are checked too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WORKFLOW = Path(__file__).parents[1] / "workflows" / "curate_embedded.yaml"
TUBES_IN_CHUNK = 10
CHUNK_BYTES = 5_000_000
FILES_IN_DIRECTORY = 1_000
MOST_S = 300.0
GROWTH_MB = 64.0

MEASURED = """
import contextlib, io, json, resource, sys
from pipeline.cli import main
printed = io.StringIO()
with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
    main()
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_kb": peak_kb, "plan": json.loads(printed.getvalue())}))
"""


def make_clips(root: Path, rows: int) -> list[str]:
    """Make a list of tubes and its chunks; returns the overrides of the source."""
    root.mkdir()
    with (root / "train_video_tubes.txt").open("w") as tubes:
        for row in range(rows):
            chunk, place = divmod(row, TUBES_IN_CHUNK)
            first = 150 * place
            tubes.write(f"{_chunk(chunk)}, 720, 1280, {first}, {first + 149}, 504, 63, 792, 351\n")
    for chunk in range(-(-rows // TUBES_IN_CHUNK)):
        if chunk % 10:
            _sparse(root / f"{_chunk(chunk)}.mp4", CHUNK_BYTES)
    return [f"source.path={root}", "source.kind=talkinghead-1kh"]


def _chunk(number: int) -> str:
    return f"id-{number // 20:08d}_{number % 20:04d}"


def make_files(root: Path, rows: int) -> list[str]:
    """Make a folder of files in directories."""
    for row in range(rows):
        directory = root / f"{row // FILES_IN_DIRECTORY:06d}"
        if row % FILES_IN_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"interview-{row:08d}.mp4").touch()
    return [f"source.path={root}"]


def make_flat(root: Path, rows: int) -> list[str]:
    """Make a folder of files in one directory."""
    root.mkdir()
    for row in range(rows):
        (root / f"interview-{row:08d}.mp4").touch()
    return [f"source.path={root}"]


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def measure(overrides: list[str]) -> tuple[float, float, dict[str, int]]:
    """Seconds, peak megabytes and the figures of a plan."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, "plan", str(WORKFLOW), *overrides, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    found = json.loads(done.stdout)
    return seconds, found["peak_kb"] / 1024, found["plan"]["total"]


def main() -> None:
    """Print a line for each source and size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000, 600_000])
    parser.add_argument("--folder", type=Path, help="directory for the files (some 2,500 MB of inodes)")
    arguments = parser.parse_args()
    kinds: dict[str, Callable[[Path, int], list[str]]] = {
        "clips": make_clips,
        "files": make_files,
        "flat": make_flat,
    }
    print(f"{'source':<8}{'rows':>9}{'seconds':>9}{'peak MB':>9}{'rows/s':>9}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for kind, make in kinds.items():
            peaks = []
            for rows in arguments.rows:
                overrides = make(Path(folder) / f"{kind}-{rows}", rows)
                seconds, peak, total = measure(overrides)
                print(f"{kind:<8}{rows:>9,}{seconds:>9.1f}{peak:>9.0f}{rows / seconds:>9,.0f}", flush=True)
                _expect(
                    total["listed"] == rows == total["found"] + total["missing"], f"wrong counts: {total}"
                )
                _expect(seconds < MOST_S, f"took longer than {MOST_S:g} s")
                peaks.append(peak)
            _expect(max(peaks) - min(peaks) < GROWTH_MB, f"memory grows by more than {GROWTH_MB:g} MB")


def _expect(kept: bool, what: str) -> None:
    if not kept:
        raise SystemExit(what)


if __name__ == "__main__":
    main()
