"""What do Ray, pipes and serialisation cost? A build beside as many plain processes, on the same videos.

`python benchmarks/curate.py CLIPS --build 200` runs it. Copies of the clips, each with other bytes, are curated
three times, interleaved with the repeats:

| run | what |
|---|---|
| alone | some of the videos in one process that is bound to one CPU, decoder included |
| plain | all videos in a process for each CPU, as many as the build has, each with its own decoder; no Ray |
| build | all videos by `pipeline/build_mfhq.py` |

Videos are curated largest first, as a build does it. The first tenth is not counted: in its time Ray starts,
libraries are imported and networks loaded. Plain against alone is what the machine costs: two CPUs that share
memory and caches. Build against plain is what Ray costs, and what the pipeline does to fit into it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from curation import WORKFLOW, Curation, children, own_cpu_seconds

from pipeline.build_mfhq import load_build_weights
from pipeline.config import Config
from pipeline.plan import BuildPlan, plan_build
from pipeline.sources.manifest import Video
from pipeline.staging import Staging
from settings.loading import load_workflow

ROOT = Path(__file__).parents[1]
SETTINGS = ("faces.min_crop_px=220", "people.keep=all")
ALONE = 8
"""One of this number of videos is also curated by itself."""
SAMPLE_S = 0.25
LARGEST_BYTES = 2_500_000
WARM_UP = 0.1
"""So much of the videos is not counted."""


@dataclass
class Curated:
    """What it took to curate some videos.

    Attributes:
        videos: how many, without the first tenth.
        seconds: from the end of the first tenth to the last result.
        cpu: processor seconds of that time, by kind of process.
        steps: seconds by video, then by step, of the counted ones.
    """

    videos: int
    seconds: float
    cpu: dict[str, float]
    steps: dict[str, dict[str, float]] = field(repr=False)


def compare(clips: Path, count: int, repeats: int, folder: Path | None) -> int:
    """Curate copies of clips by all three, and print the tables."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        copies = work / "clips"
        made = copy_clips(clips, copies, count)
        print(f"{made} videos, {os.cpu_count()} CPUs", flush=True)
        runs: dict[str, list[Curated]] = {"alone": [], "plain": [], "build": []}
        for repeat in range(repeats):
            for name, run in (("alone", alone), ("plain", plain), ("build", build)):
                found = run(copies, work / f"{name}-{repeat}")
                runs[name].append(found)
                cpu = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(found.cpu.items()))
                print(
                    f"{name}: {found.videos} videos in {found.seconds:.1f} s; processor seconds: {cpu}",
                    flush=True,
                )
    print()
    print("\n".join(summary(runs)))
    return 0


def summary(runs: dict[str, list[Curated]]) -> Iterator[str]:
    """The seconds of each step, per video, of the videos that all runs share; the last line is the ratio."""
    shared = set.intersection(*(set(run.steps) for name in runs for run in runs[name]))
    steps = {
        name: {step: statistics.median(_mean(run, shared, step) for run in found) for step in _steps(found)}
        for name, found in runs.items()
    }
    yield f"seconds of a step, mean of {len(shared)} videos"
    yield f"{'':<10} {'alone':>8} {'plain':>8} {'build':>8} {'plain/alone':>12} {'build/plain':>12}"
    for step in [*steps["plain"], ""]:
        row = [sum(s for name, s in steps[run].items() if step in ("", name)) for run in runs]
        yield (
            f"{step or 'all':<10} {row[0]:>8.3f} {row[1]:>8.3f} {row[2]:>8.3f} "
            f"{_ratio(row[1], row[0]):>12} {_ratio(row[2], row[1]):>12}"
        )
    cpu = {name: statistics.median(sum(r.cpu.values()) / r.videos for r in runs[name]) for name in runs}
    yield (
        f"processor seconds a video: plain {cpu['plain']:.3f}, build {cpu['build']:.3f}, "
        f"{cpu['build'] / cpu['plain']:.2f} times"
    )
    pairs = zip(runs["build"], runs["plain"], strict=True)
    ratio = statistics.median(
        (build.seconds / build.videos) / (plain.seconds / plain.videos) for build, plain in pairs
    )
    yield f"the build takes {ratio:.2f} times as long as plain processes"


def _ratio(seconds: float, of: float) -> str:
    return f"{seconds / of:.2f}" if of else ""


def _steps(runs: list[Curated]) -> list[str]:
    return list(dict.fromkeys(step for run in runs for steps in run.steps.values() for step in steps))


def _mean(run: Curated, videos: set[str], step: str) -> float:
    return statistics.mean(run.steps[video].get(step, 0.0) for video in sorted(videos))


def copy_clips(clips: Path, folder: Path, count: int) -> int:
    """Fill a folder with copies of the short MP4 clips: an empty box at the end gives each other bytes."""
    folder.mkdir()
    paths = [
        path
        for path in sorted(clips.glob("*.mp4"))
        if not path.name.startswith("made_") and path.stat().st_size < LARGEST_BYTES
    ]
    if not paths:
        raise SystemExit(f"{clips} contains no MP4 file of less than {LARGEST_BYTES:,} bytes")
    for number, path in enumerate(islice(cycle(paths), count)):
        content = b"%08d" % number
        box = (8 + len(content)).to_bytes(4, "big") + b"free" + content
        (folder / f"{number:04}-{path.name}").write_bytes(path.read_bytes() + box)
    return count


def alone(copies: Path, output: Path) -> Curated:
    """Curate some of the videos in one process on one CPU."""
    return _in_processes(copies, output, processes=1, every=ALONE)


def plain(copies: Path, output: Path) -> Curated:
    """Curate all videos in as many processes as there are CPUs."""
    return _in_processes(copies, output, processes=os.cpu_count() or 1, every=1)


def _in_processes(copies: Path, output: Path, *, processes: int, every: int) -> Curated:
    plan = _plan(copies, output)
    todo = plan.todo[::every]
    context = multiprocessing.get_context("spawn")
    following = context.Value("i", 0)
    task = _Task(copies, output, todo, plan.staging, one_cpu=processes == 1)
    started = [context.Process(target=_curate_some, args=(task, following)) for _ in range(processes)]
    for process in started:
        process.start()
    clock = ProcessorClock(os.getpid(), plain=True)
    while any(process.is_alive() for process in started):
        clock.read()
        time.sleep(SAMPLE_S)
    if any(process.exitcode for process in started):
        raise SystemExit("a process that curates has ended with an error, see above")
    return _measured(todo, plan.staging, clock)


@dataclass(frozen=True)
class _Task:
    copies: Path
    output: Path
    todo: list[Video]
    staging: Staging
    one_cpu: bool


def _curate_some(task: _Task, following: Synchronized[int]) -> None:
    """Curate one video after another until none is left."""
    if task.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import cv2
    import sklearn.cluster  # noqa: F401 - as an analyser does, so that no video pays for it
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    curation = Curation(task.copies, f"output={task.output}", *SETTINGS)
    gc.freeze()  # as the actors do
    while True:
        with following.get_lock():
            number = following.value
            following.value += 1
        if number >= len(task.todo):
            break
        video = task.todo[number]
        task.staging.write(video, curation.curate_video(video).finalized)


def build(copies: Path, output: Path) -> Curated:
    """Curate all videos by the command that users run."""
    script = ROOT / "pipeline" / "build_mfhq.py"
    command = [sys.executable, str(script), str(WORKFLOW), *_arguments(copies, output)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    clock = ProcessorClock(process.pid)
    while process.poll() is None:
        clock.read()
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"the build ended with exit code {process.returncode}: {' '.join(command)}")
    plan = _plan(copies, output)
    return _measured(plan.manifest.videos, plan.staging, clock)


def _measured(videos: list[Video], staging: Staging, clock: ProcessorClock) -> Curated:
    """What it took, by the times at which the results were written."""
    written = sorted(staging.path(video).stat().st_mtime for video in videos)
    first, last = written[int(WARM_UP * len(videos))], written[-1]
    cpu = clock.until(last)
    cpu.subtract(clock.until(first))
    counted = [video for video in videos if staging.path(video).stat().st_mtime > first]
    steps = {video.video_id: staging.seconds(video) for video in counted}
    return Curated(len(counted), last - first, dict(cpu), steps)


class ProcessorClock:
    """Processor seconds of a build over time, also of its processes that have ended.

    Args:
        driver: the process that starts the others.
        plain: whether it only waits for them, and its own time is this benchmark's.
    """

    def __init__(self, driver: int, plain: bool = False) -> None:
        self._driver = driver
        self._plain = plain
        self._kinds: dict[int, str] = {}
        self._readings: list[tuple[float, dict[int, float]]] = []

    def read(self) -> None:
        """Read the clocks of all processes."""
        now: dict[int, float] = {}
        if self._plain:
            for process in children(self._driver):
                self._kinds[process] = "processes"
                self._read(process, process, now)
        else:
            self._kinds[self._driver] = "driver"
            self._read(self._driver, self._driver, now)
        self._readings.append((time.time(), now))

    def _read(self, process: int, owner: int, now: dict[int, float]) -> None:
        """Add a process, and what it started, to its owner: a decoder counts as its analyser."""
        kind = None if self._plain else _kind(process)
        if kind is not None and process != self._driver:
            owner = process
            if self._kinds.get(process) in (None, "Ray"):  # a worker gets its title late
                self._kinds[process] = kind
        now[owner] = now.get(owner, 0.0) + own_cpu_seconds(process)
        for child in children(process):
            self._read(child, owner, now)

    def until(self, moment: float) -> Counter[str]:
        """Seconds by kind of process."""
        last: dict[int, float] = {}
        for at, now in self._readings:
            if at <= moment:
                last |= now
        found: Counter[str] = Counter()
        for process, seconds in last.items():
            found[self._kinds[process]] += seconds
        return found


def _kind(process: int) -> str | None:
    """The kind of a process of Ray; None for others."""
    try:
        title = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    if title.startswith("ray::") and "Curate" in title:
        return "analysers"
    ours = "\0-c\0" in title  # a decoder
    return "Ray" if title.startswith("ray::") or ("/ray/" in title and not ours) else None


def _arguments(copies: Path, output: Path) -> list[str]:
    return [f"source.path={copies}", f"output={output}", *SETTINGS]


def _plan(copies: Path, output: Path) -> BuildPlan:
    config = load_workflow(WORKFLOW, _arguments(copies, output), Config)
    return plan_build(config, load_build_weights(config), replace=False)
