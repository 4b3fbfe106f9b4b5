"""Which decoder is faster on these clips? decord and PyAV side by side, on the frames a build would look at.

    python benchmarks/decoders.py DIR [--repeats 5]

Repeats are interleaved, so that a noisy machine disturbs both alike; the ratio is the median over repeats. The
limit of both is decoding every frame once without converting any, measured as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av

from pipeline.config import Frames
from pipeline.sources.folder import VIDEO_SUFFIXES
from pipeline.stages.decode import decode, plan_frames
from pipeline.stages.probe import Probe, probe


def main() -> None:
    """Measure every clip of a folder and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    print(f"{'clip':<40} {'frames':>6} {'used':>5} {'limit s':>8} {'decord s':>9} {'pyav s':>8} {'ratio':>6}")
    ratios = []
    for path in sorted(options.folder.iterdir()):
        found = probe(path) if path.suffix.lower() in VIDEO_SUFFIXES else None
        if not isinstance(found, Probe):
            continue
        planned = plan_frames(found.times_s, Frames())
        runs: dict[str, Callable[[], object]] = {
            "limit": lambda path=path: decode_only(path),
            "decord": lambda path=path, found=found, planned=planned: drain(path, found, planned, "decord"),
            "pyav": lambda path=path, found=found, planned=planned: drain(path, found, planned, "pyav"),
        }
        seconds = interleaved(runs, options.repeats)
        ratio = statistics.median(d / p for d, p in zip(seconds["decord"], seconds["pyav"], strict=True))
        ratios.append(ratio)
        limit, decord, pyav = (statistics.median(seconds[name]) for name in runs)
        print(
            f"{path.name:<40.40} {found.frames:>6} {len(planned):>5} {limit:>8.3f} {decord:>9.3f} {pyav:>8.3f} "
            f"{ratio:>6.2f}"
        )
    print(f"median decord/pyav over {len(ratios)} clips: {statistics.median(ratios):.2f}")


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, `repeats` times in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def drain(path: Path, found: Probe, planned: object, decoder: str) -> None:
    """Decode the planned frames and drop them."""
    for _ in decode(path, found, planned, decoder):  # type: ignore[arg-type]
        pass


def decode_only(path: Path) -> None:
    """Decode every frame on one thread, without converting it to RGB."""
    with av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].thread_type = "NONE"
        for _ in container.decode(video=0):
            pass


if __name__ == "__main__":
    main()
