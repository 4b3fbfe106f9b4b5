"""Which decoder is fastest on these clips? All frames to RGB on one thread, decoders side by side.

    python benchmarks/decoders.py DIR [--repeats 5]

| column | what |
|---|---|
| limit | FFmpeg by PyAV decodes every frame and converts none |
| sound | this project's decoder: PyAV, damage followed, all frames as RGB |
| pyav | PyAV without any check, all frames as RGB |
| decord | decord, which does not report damage |
| torchcodec | torchcodec, where it is installed and finds FFmpeg's libraries |

Repeats are interleaved, so that a noisy machine disturbs all alike. Seconds are of the processor, not the clock,
and so independent of what else runs; a table's figure is the median over repeats, a ratio the median of ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from pipeline.decode.frames import decode
from pipeline.decode.probe import Probe, probe


def main() -> None:
    """Measure every clip of a folder and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of clips; all when left out")
    options = parser.parse_args()

    contenders = {"limit": limit, "sound": sound, "pyav": plain_pyav, "decord": decord}
    if torchcodec_works():
        contenders["torchcodec"] = torchcodec
    others = [name for name in contenders if name != "sound"]
    header = " ".join(f"{name + ' s':>13}" for name in contenders)
    print(f"{'clip':<38} {'codec':<10} {'frames':>6} {header}")
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for path in sorted(options.folder.iterdir()):
        if options.only and path.name not in options.only:
            continue
        found = probe(path)
        if not isinstance(found, Probe):
            continue
        seconds = interleaved(contenders, path, found, options.repeats)
        for name in others:
            pairs = zip(seconds[name], seconds["sound"], strict=True)
            if seconds[name]:
                ratios[name].append(statistics.median(other / ours for other, ours in pairs))
        row = " ".join(
            f"{statistics.median(values):>13.3f}" if values else f"{'-':>13}" for values in seconds.values()
        )
        print(f"{path.name:<38.38} {found.codec:<10} {found.frames:>6} {row}", flush=True)
    for name in others:
        values = ratios[name]
        if values:
            print(
                f"{name}/sound: median {statistics.median(values):.2f}, "
                f"{min(values):.2f} to {max(values):.2f} over {len(values)} clips"
            )


def interleaved(
    contenders: dict[str, Callable[[Path, Probe], int]], path: Path, found: Probe, repeats: int
) -> dict[str, list[float]]:
    """Processor seconds of each contender, `repeats` times in turn; none where it fails or gives no frames."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    broken: set[str] = set()
    for _ in range(repeats):
        for name, run in contenders.items():
            if name in broken:
                continue
            start = time.process_time()
            try:
                frames = run(path, found)
            except Exception as error:
                print(f"  {name} fails on {path.name}: {str(error).splitlines()[0][:80]}")
                frames = 0
            if frames == 0:
                broken.add(name)
                seconds[name].clear()
            else:
                seconds[name].append(time.process_time() - start)
    return seconds


def sound(path: Path, found: Probe) -> int:
    """The decoder of the pipeline."""
    return sum(1 for _ in decode(path, found, np.arange(found.frames), "pyav"))


def plain_pyav(path: Path, _: Probe) -> int:
    """PyAV as its documentation shows it, on one thread."""
    with av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(
            frame.to_ndarray(format="rgb24", threads=1).size > 0 for frame in container.decode(video=0)
        )


def limit(path: Path, _: Probe) -> int:
    """Decode every frame on one thread, without converting it to RGB."""
    with av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for _ in container.decode(video=0))


def decord(path: Path, found: Probe) -> int:
    """Decord in order, frame by frame."""
    import decord as library

    reader = library.VideoReader(str(path), num_threads=1)
    return sum(reader.next().asnumpy().size > 0 for _ in range(found.frames))


def torchcodec(path: Path, _: Probe) -> int:
    """Torchcodec in order, frame by frame."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    return sum(frame.numpy().size > 0 for frame in decoder)


def torchcodec_works() -> bool:
    """Whether torchcodec is installed and finds FFmpeg's libraries."""
    try:
        import torch
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec is left out: {str(error).splitlines()[0]}")
        return False
    torch.set_num_threads(1)
    return VideoDecoder is not None


if __name__ == "__main__":
    main()
