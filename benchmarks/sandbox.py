"""What the sandbox costs: start-up per video, and frames a second against decoding in the same process.

    python benchmarks/sandbox.py CLIPS [--repeats 5] [--count 6]

Every repeat decodes each clip in this process and in the sandbox, one after the other, so that a busy machine
slows both; medians are printed. The limit is 1.0: a sandbox that costs nothing. Frames are compared before they
are timed. The exit status is 1 when frames differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.decode.frames import CorruptFrame, Frame, decode
from pipeline.decode.probe import Probe, probe
from pipeline.sandbox import SandboxedDecoder

TIMEOUT_S = 600.0


def inside(sandbox: SandboxedDecoder, path: Path) -> int:
    """Decode all frames in the sandbox; their checksum."""
    with sandbox.open(path, TIMEOUT_S) as video:
        return checksum(video.frames(np.arange(video.probe().frames), "pyav"))


def outside(path: Path) -> int:
    """Decode all frames in this process; their checksum."""
    found = probe(path)
    if not isinstance(found, Probe):
        raise SystemExit(f"{path} is no sound video: {found.detail}")
    return checksum(decode(path, found, np.arange(found.frames), "pyav"))


def checksum(frames: Iterable[Frame | CorruptFrame]) -> int:
    """A number that every frame changes; of some rows only, which leaves the timing alone."""
    total = 0
    for frame in frames:
        if isinstance(frame, Frame):
            total = (31 * total + hash(frame.image[:: max(len(frame.image) // 4, 1)].tobytes())) % 2**61
    return total


def first_answer(sandbox: SandboxedDecoder, path: Path) -> None:
    """Open, probe, close."""
    with sandbox.open(path, TIMEOUT_S) as video:
        video.probe()


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> int:
    """Run, print, and say whether the frames are equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--count", type=int, default=6, help="how many, spread over their sizes")
    arguments = parser.parse_args()
    files = sorted(
        (path for path in arguments.clips.iterdir() if path.is_file()), key=lambda path: path.stat().st_size
    )
    videos = [(path, found) for path in files if isinstance(found := probe(path), Probe)]
    places = np.unique(np.linspace(0, len(videos) - 1, arguments.count, dtype=int))

    began = time.perf_counter()
    sandbox = SandboxedDecoder()
    print(
        f"{sandbox.enforced.describe()}\nfork server: {time.perf_counter() - began:.2f} s, once a process\n"
    )
    print(f"{'clip':28} {'frames':>6} {'size':>10} {'start':>9} {'alone':>9} {'sandbox':>9} {'ratio':>6}")
    equal, ratios, starts = True, [], []
    for path, found in [videos[place] for place in places]:
        equal &= inside(sandbox, path) == outside(path)
        alone, confined, start = [], [], []
        for _ in range(arguments.repeats):
            alone.append(seconds(partial(outside, path)))
            confined.append(seconds(partial(inside, sandbox, path)))
            start.append(seconds(partial(first_answer, sandbox, path)) - seconds(partial(probe, path)))
        ratio = statistics.median(confined) / statistics.median(alone)
        ratios.append(ratio)
        starts.append(statistics.median(start))
        size = f"{found.coded_width}x{found.coded_height}"
        rates = [f"{found.frames / statistics.median(times):7.0f}/s" for times in (alone, confined)]
        print(
            f"{path.name:28} {found.frames:6} {size:>10} {1000 * starts[-1]:6.1f} ms {rates[0]:>9} {rates[1]:>9} "
            f"{ratio:6.2f}"
        )
    sandbox.close()
    print(
        f"\nmedian: {1000 * statistics.median(starts):.1f} ms more to the first answer; "
        f"{statistics.median(ratios):.2f} times the time of decoding alone (limit 1.00)"
    )
    print("frames equal" if equal else "FRAMES DIFFER")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
