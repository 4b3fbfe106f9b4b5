"""What does the engine cost beside the analysis? Whole builds whose videos cost nothing to analyse.

    python benchmarks/engine.py [--videos 2000 20000] [--folder DIR]

Every video is a file of a few bytes, and two of three give an identity with eight plain images at once. All else
is the build that users run: planning, Ray Data, staging, people, packing, verifying, report. Each size is a build
in its own process. Columns, of each phase:

| column | what |
|---|---|
| driver | processor time of the driver, in ms a video |
| others | that of all other processes together: Ray's own, and the actors and tasks |
| wall | seconds |
| peak | largest memory of the driver so far, in MB, with mapped files that the system can drop |
| anon | the part of it that the system cannot drop, seen every half a second |

The last lines give the sum over all phases but `start`, the largest content of Ray's object store, and how the
sums of the sizes differ. `start` is what does not depend on the number of videos: Ray and the first actors.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from curation import TICKS, WORKFLOW, children
from no_analysis import NoAnalysis
from rich.console import Console

from pipeline import build_mfhq
from pipeline.config import Config
from pipeline.progress import Reporter
from settings.loading import load_workflow

LOOK_S = 0.5
SAMPLE_S = 2.0
PHASES = ("plan_build", "curate", "pack", "check", "write_report")


class Others(threading.Thread):
    """Processor time of all processes that this one has started, also of those that have ended since.

    And the memory of this one.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = 0.0
        """Largest anonymous memory of this process, in MB."""
        self._seconds: dict[int, float] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            self.read()
            time.sleep(LOOK_S)

    def read(self) -> float:
        """Seconds so far."""
        with self._lock:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            self.anonymous = max(self.anonymous, int(status.split("RssAnon:")[1].split()[0]) / 1024)
            self._read(os.getpid())
            return sum(self._seconds.values())

    def _read(self, parent: int) -> None:
        for process in children(parent):
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                self._seconds[process] = (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime
            self._read(process)


class Clock:
    """Processor time, wall time and memory by phase."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self._others = Others()
        self._others.start()
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {"driver": sum(os.times()[:2]), "others": self._others.read(), "wall": time.monotonic()}

    def note(self, phase: str) -> None:
        """What has passed since the last note belongs to a phase."""
        now = self._now()
        row = self.rows.setdefault(phase, dict.fromkeys(now, 0.0))
        for name, value in now.items():
            row[name] += value - self._before[name]
        row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row["anon"] = self._others.anonymous
        self._before = now

    def timed(self, phase: str) -> Callable[..., Any]:
        """A function of `build_mfhq`, timed."""
        function: Callable[..., Any] = getattr(build_mfhq, phase)

        def run(*arguments: Any, **named: Any) -> Any:
            self.note("start")
            try:
                return function(*arguments, **named)
            finally:
                self.note(phase)

        return run


class ObjectStore(threading.Thread):
    """Looks at how much Ray's object store holds, from time to time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            time.sleep(SAMPLE_S)
            ray = sys.modules.get("ray")
            if ray is None or not getattr(ray, "is_initialized", lambda: False)():
                continue
            with suppress(Exception):
                total = ray.cluster_resources()["object_store_memory"]
                self.most = max(self.most, total - ray.available_resources()["object_store_memory"])


def one(count: int, folder: Path) -> None:
    """Build once and print the figures as JSON."""
    clips = folder / "clips"
    clips.mkdir()
    for number in range(count):
        (clips / f"{number:07}.mp4").write_bytes(b"%d" % number)
    config = load_workflow(WORKFLOW, [f"source.path={clips}", f"output={folder / 'mfhq'}"], Config)
    store = ObjectStore()
    store.start()
    clock = Clock()
    build_mfhq.Curate = NoAnalysis  # type: ignore[misc, assignment]
    for phase in PHASES:
        setattr(build_mfhq, phase, clock.timed(phase))
    built = build_mfhq.run(config, Reporter(Console(file=sys.stderr)))
    clock.note("start")
    if sum(built.metadata.counts.videos.values()) != count:
        raise SystemExit(f"the dataset does not account for {count} videos: {built.metadata.counts}")
    print(json.dumps({"rows": clock.rows, "store": store.most, "shards": len(built.metadata.shards)}))


def main() -> int:
    """Build each size in its own process and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--folder", type=Path, help="for the builds; the system's temporary one if not given")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        one(options.one, options.folder)
        return 0
    # Ray's workers find the module of the actor.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    sums = []
    for count in options.videos:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            command = [sys.executable, __file__, "--one", str(count), "--folder", folder]
            made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found = json.loads(made.stdout.splitlines()[-1])
        print(f"{count} videos, {found['shards']} shards, {os.cpu_count()} CPUs")
        print(f"{'':<14} {'driver':>8} {'others':>8} {'wall':>8} {'peak':>8} {'anon':>8}")
        for phase, row in found["rows"].items():
            print(
                f"{phase:<14} {1000 * row['driver'] / count:>8.2f} {1000 * row['others'] / count:>8.2f} "
                f"{row['wall']:>8.1f} {row['peak']:>8.0f} {row['anon']:>8.0f}"
            )
        cost = sum(row["driver"] + row["others"] for phase, row in found["rows"].items() if phase != "start")
        sums.append(1000 * cost / count)
        print(f"{sums[-1]:.2f} ms a video; object store at most {found['store'] / 1e6:.0f} MB\n", flush=True)
    print(f"the largest sum is {max(sums) / min(sums):.2f} times the smallest")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
