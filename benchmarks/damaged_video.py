"""Does damaged video become data? Damages real clips in every way and compares what comes out with the original.

    python benchmarks/damaged_video.py CLIPS [--mutations 350] [--decoder auto] [--json FILE]

Short cuts of real clips (stream copies), and encodes of one of them for the codecs that no clip has, are
damaged at random (seeded). Every frame of every damaged file that still is a video goes through the decoder. A
frame that comes out is sound when some frame of the original gives a PSNR of 28 dB or more at 128 px, for the full
frame and for its centre. Two kinds of unsound frames are counted: known ones, which come out behind a corrupt
frame with neither a sound nor a key frame in between (there must be none), and silent ones (at most 1 percent: bit
flips that decode without complaint).

The originals are decoded too: they must lose nothing. Exit status 1 when one of the three does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from damaged_sources import Source, make_sources
from numpy.typing import NDArray
from video_mutations import MUTATIONS

from pipeline.decode.frames import CorruptFrame, DecodeError, Frame, decode
from pipeline.decode.probe import Probe, probe

SIDE = 128
"""Pixels; frames are compared at this size."""
LEAST_PSNR = 28.0
MOST_SILENT = 0.01
TIME_LIMIT_S = 120.0

Views = NDArray[np.float32]
"""(frames, 2, SIDE * SIDE * 3) full frame and centre, 0 to 255."""


@dataclass
class Outcome:
    """What came of one damaged file."""

    source: str
    codec: str
    mutation: str
    seed: int
    result: str = "frames"
    planned: int = 0
    corrupt: int = 0
    psnr: list[float] = field(default_factory=list)
    """Of every frame that comes out, see `best_psnr`."""
    unsound: list[int] = field(default_factory=list)
    """Indices of the frames below `LEAST_PSNR`."""
    known: int = 0
    """How many of them come out behind a corrupt frame with neither a sound nor a key frame in between."""

    @property
    def silent(self) -> int:
        """How many unsound frames the decoder knows nothing of."""
        return len(self.unsound) - self.known


def views(frames: list[Frame]) -> Views:
    """The frames as they are compared."""
    out = np.zeros((len(frames), 2, SIDE * SIDE * 3), np.float32)
    for row, frame in enumerate(frames):
        height, width = frame.image.shape[:2]
        side = max(min(height, width) // 2, 1)
        top, left = (height - side) // 2, (width - side) // 2
        centre = frame.image[top : top + side, left : left + side]
        for view, image in enumerate((frame.image, centre)):
            out[row, view] = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(-1)
    return out


def best_psnr(view: Views, index: int, originals: Views) -> float:
    """PSNR in dB of the worse of a frame's two views, for the frame of the original that fits best.

    Frames near its own index are tried first; the search ends where one is sound.

    Args:
        view: (2, SIDE * SIDE * 3) one frame.
        index: of the frame, by the damaged file.
        originals: all frames of the original.
    """
    best = 0.0
    for other in sorted(range(len(originals)), key=lambda other: abs(other - index)):
        squares = ((view - originals[other]) ** 2).mean(axis=1)
        best = max(best, 10 * math.log10(255.0**2 / max(float(squares.max()), 1e-3)))
        if best >= LEAST_PSNR:
            break
    return best


def decoded(path: Path, decoder: str) -> tuple[list[Frame], int, list[int], str]:
    """Every frame of a file that comes out; number of planned frames; the corrupt ones; the result in a word."""
    found = probe(path)
    if not isinstance(found, Probe):
        return [], 0, [], f"{found.reason}"
    frames: list[Frame] = []
    corrupt: list[int] = []
    try:
        for item in decode(path, found, np.arange(found.frames), decoder):
            if isinstance(item, CorruptFrame):
                corrupt.append(item.index)
            else:
                frames.append(item)
    except DecodeError:
        return frames, found.frames, corrupt, "decode_error"
    return frames, found.frames, corrupt, "frames"


def examine(
    source: Source, originals: Views, mutation: str, seed: int, *, decoder: str, folder: Path
) -> Outcome:
    """Damage a file, decode it and compare."""
    outcome = Outcome(source.path.name, source.codec, mutation, seed)
    rng = np.random.default_rng([seed, *mutation.encode(), *source.path.name.encode()])
    path = folder / f"{seed}-{source.path.name}"
    path.write_bytes(MUTATIONS[mutation](source.path.read_bytes(), source.stream_start, rng))
    try:
        frames, outcome.planned, corrupt, outcome.result = decoded(path, decoder)
    except MemoryError:
        frames, corrupt, outcome.result = [], [], "out_of_memory"
    finally:
        path.unlink()
    outcome.corrupt = len(corrupt)
    if frames:
        outcome.psnr = [
            round(best_psnr(view, frame.index, originals), 1)
            for view, frame in zip(views(frames), frames, strict=True)
        ]
        outcome.unsound = [f.index for f, p in zip(frames, outcome.psnr, strict=True) if p < LEAST_PSNR]
        out = [frame.index for frame in frames]
        # Where packets are lost, the key frames of the original may have a smaller number.
        shift = max(len(originals) - outcome.planned, 0)
        keys = {key - less for key in source.keys for less in range(shift + 1)}
        outcome.known = sum(
            _is_known(index, corrupt, outcome.unsound, out, keys) for index in outcome.unsound
        )
    return outcome


def _is_known(index: int, corrupt: list[int], unsound: list[int], out: list[int], keys: set[int]) -> bool:
    last = max((other for other in corrupt if other < index), default=None)
    if last is None:
        return False
    run = [other for other in out if last < other <= index]
    return set(unsound).issuperset(run) and run[0] not in keys


Job = tuple[Source, Views, str, int]


def run_all(jobs: list[Job], decoder: str, folder: Path, processes: int) -> list[Outcome]:
    """`examine` every job in its own process, which a damaged file may crash or stall."""
    waiting, outcomes = list(reversed(jobs)), []
    running: dict[int, tuple[Job, int, float]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            job = waiting.pop()
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                answer = examine(*job, decoder=decoder, folder=folder)
                os.write(writer, json.dumps(asdict(answer)).encode())
                os._exit(0)
            os.close(writer)
            running[child] = (job, reader, time.monotonic())
        for child, (job, reader, start) in list(running.items()):
            late = time.monotonic() - start > TIME_LIMIT_S
            if late:
                os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0 if late else os.WNOHANG)[0]:
                outcomes.append(_answer(job, reader, "timeout" if late else "crashed"))
                del running[child]
                print(f"\r{len(outcomes)} of {len(jobs)}", end="", file=sys.stderr, flush=True)
        time.sleep(0.01)
    return outcomes


def _answer(job: Job, reader: int, otherwise: str) -> Outcome:
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    source, _, mutation, seed = job
    if not answer:
        return Outcome(source.path.name, source.codec, mutation, seed, result=otherwise)
    return Outcome(**json.loads(answer))


def tally(outcomes: list[Outcome], by: str) -> Iterator[str]:
    """A table by codec or by kind of damage."""
    yield (
        f"{by:<14} {'files':>6} {'frames':>7} {'corrupt':>8} {'unsound':>8} {'known':>6} {'silent':>7} "
        f"{'silent %':>9}"
    )
    for name in [*sorted({getattr(o, by) for o in outcomes}), "all"]:
        rows = [o for o in outcomes if name in (getattr(o, by), "all")]
        frames = sum(len(o.psnr) for o in rows)
        silent, known = sum(o.silent for o in rows), sum(o.known for o in rows)
        yield (
            f"{name:<14} {len(rows):>6} {frames:>7} {sum(o.corrupt for o in rows):>8} "
            f"{silent + known:>8} {known:>6} {silent:>7} "
            f"{100 * silent / max(frames, 1):>9.2f}"
        )


def main() -> int:
    """Damage, decode, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--mutations", type=int, default=350)
    parser.add_argument("--decoder", default="auto", choices=["auto", "pyav", "decord"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.monotonic()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make_sources(options.clips, folder)
        originals: dict[str, Views] = {}
        lost = 0
        for source in sources:
            frames, planned, corrupt, _ = decoded(source.path, options.decoder)
            originals[source.path.name] = views(frames)
            lost += len(corrupt)
            if corrupt:
                print(f"{source.path.name}: {len(corrupt)} of {planned} frames of an intact clip are lost")
        jobs = []
        kinds = list(MUTATIONS)
        for number in range(options.mutations):
            source = sources[number % len(sources)]
            # Each round over the sources shifts the kinds by one, so that every source meets every kind.
            kind = kinds[(number % len(sources) + number // len(sources)) % len(kinds)]
            jobs.append((source, originals[source.path.name], kind, number))
        outcomes = run_all(jobs, options.decoder, folder, options.processes)
    if options.json:
        options.json.write_text(json.dumps([asdict(o) for o in outcomes]))

    for by in ("codec", "mutation"):
        print("\n".join(tally(outcomes, by)), end="\n\n")
    print("outcomes:", dict(Counter(o.result for o in outcomes).most_common()))
    frames_out = sum(len(o.psnr) for o in outcomes)
    known = sum(o.known for o in outcomes)
    silent = sum(o.silent for o in outcomes) / max(frames_out, 1)
    print(f"{len(outcomes)} damaged files of {len(sources)} clips in {time.monotonic() - start:.0f} s")
    print(f"frames lost of intact clips: {lost} (must be 0)")
    print(f"unsound frames where the decoder reports damage: {known} (must be 0)")
    print(f"unsound frames, silent: {100 * silent:.2f} % of {frames_out} (at most {100 * MOST_SILENT:.0f} %)")
    return int(lost > 0 or known > 0 or silent > MOST_SILENT)


if __name__ == "__main__":
    raise SystemExit(main())
