"""How large a cluster does a dataset take? Measures the clips at hand, and works out a build of many like them.

    python benchmarks/cluster_size.py CLIPS [KEY=VALUE ...] [--workflow FILE] [--videos 200000] [--video-s 10]
        [--only NAME ...] [--gpu-tflops 15 --gpu-share 0.3]

Each clip is curated in this process, as an analyser of a build does it, and its processor seconds are counted:
of the process and of the decoder's. Loading the networks is not counted. From the clips come

    seconds of a core = seconds a clip + seconds for a second of video

by least squares over the clips that give an identity, since those that are rejected early cost less: so the
result errs on the large side. `--random-topiq` writes TOPIQ's network with random weights to the file CLIPS and
ends, to measure the paper's profile without its weights: what a network costs does not depend on them.

With --gpu-tflops, what the networks that run on GPUs take there is *estimated*, not measured: operations of TOPIQ
(counted on this machine) over the float32 peak of the GPU times the share of it that is reached.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from curation import WORKFLOW, Curation, _video, cpu_seconds
from kernel_times import KernelTimes, decoding_s

from pipeline.staging import Staging

HOUR_S = 3600.0
NODES = ((8, 0), (16, 1), (64, 0))
"""Shapes of nodes: CPUs and GPUs."""
OVERHEAD = 1.06
"""A build's time as a multiple of that of plain processes (docs/curation.md, "A whole build")."""
ON_GPU = ("detect", "embed", "quality")
"""Kernels that run on a GPU with run.device=cuda."""


@dataclass(frozen=True)
class Measured:
    """One clip."""

    name: str
    video_s: float
    side: int
    file_bytes: int
    core_s: float
    kernels_s: dict[str, float]
    calls: dict[str, int]
    decode_s: float
    identities: int
    staged_bytes: int


def measure(curation: Curation, kernels: KernelTimes, path: Path, folder: Path) -> Measured:
    """Curate one clip, and stage it."""
    kernels.calls.clear()
    kernels.seconds.clear()
    began = cpu_seconds()
    video = _video(path)
    finalized = curation.curate_video(video).finalized
    outcome = finalized.outcome
    staging = Staging(folder)
    staging.write(video, finalized)
    core_s = cpu_seconds() - began
    return Measured(
        name=path.name,
        video_s=outcome.duration_s or 0.0,
        side=min(outcome.width or 0, outcome.height or 0),
        file_bytes=path.stat().st_size,
        core_s=core_s,
        kernels_s=dict(kernels.seconds),
        calls=dict(kernels.calls),
        decode_s=decoding_s(path) if outcome.identities else 0.0,
        identities=outcome.identities,
        staged_bytes=staging.path(video).stat().st_size,
    )


def fitted(clips: list[Measured], seconds: list[float]) -> tuple[float, float]:
    """Seconds a clip, and for a second of video; neither below 0."""
    lengths = np.array([clip.video_s for clip in clips])
    if np.ptp(lengths) < 1:
        return 0.0, sum(seconds) / lengths.sum()
    table = np.stack([np.ones(len(clips)), lengths], axis=1)
    fixed, each = np.linalg.lstsq(table, np.array(seconds), rcond=None)[0]
    if fixed < 0 or each < 0:
        return (0.0, sum(seconds) / lengths.sum()) if fixed < 0 else (statistics.mean(seconds), 0.0)
    return float(fixed), float(each)


def topiq_tflop() -> float:
    """Operations of TOPIQ for an image of 512 px, in units of 10^12; a multiplication with an addition is two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from faces.quality import _cfanet

    network = _cfanet().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 512, 512))
    return counter.get_total_flops() / 1e12


def random_topiq(path: Path) -> None:
    """Write TOPIQ's network with random weights in pyiqa's format."""
    import torch

    from faces.quality import _cfanet

    torch.manual_seed(0)
    network = _cfanet()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(0.3)
    torch.save({"params": network.state_dict()}, path)


def show(clips: list[Measured]) -> None:
    """A line a clip."""
    print(
        f"{'clip':<28} {'px':>5} {'s':>6} {'core s':>7} {'of it decode':>12}  "
        "detect landmarks embed quality (calls, s)"
    )
    for clip in clips:
        kernels = "  ".join(
            f"{clip.calls.get(name, 0)} {clip.kernels_s.get(name, 0.0):.2f}"
            for name in ("detect", "landmarks", "embed", "quality")
        )
        print(
            f"{clip.name:<28} {clip.side:>5} {clip.video_s:>6.1f} {clip.core_s:>7.2f} {clip.decode_s:>12.2f}  "
            f"{kernels}  {clip.identities} identities"
        )


def extrapolate(clips: list[Measured], videos: int, video_s: float, gpu: tuple[float, float] | None) -> None:
    """Print what a build of many such clips takes."""
    fixed, each = fitted(clips, [clip.core_s for clip in clips])
    total_h = videos * (fixed + each * video_s) * OVERHEAD / HOUR_S
    print(f"\n{len(clips)} clips: {fixed:.2f} s a clip and {each:.3f} s for a second of video, of one core")
    print(f"{videos:,} videos of {video_s:g} s: {total_h:,.0f} core-hours (with Ray's {OVERHEAD:g})")
    for cpus, gpus in NODES:
        if not gpus:
            print(f"  nodes of {cpus} CPUs: {total_h / cpus:,.0f} node-hours")
    rate = sum(clip.file_bytes for clip in clips) / sum(clip.video_s for clip in clips)
    staged = statistics.mean(clip.staged_bytes for clip in clips)
    print(f"read {videos * video_s * rate / 1e12:.2f} TB, staged at most {videos * staged / 1e12:.2f} TB")
    scored = statistics.mean(clip.calls.get("quality", 0) for clip in clips)
    on_gpu = [sum(clip.kernels_s.get(name, 0.0) for name in ON_GPU) for clip in clips]
    fixed, each = fitted(clips, [clip.core_s - seconds for clip, seconds in zip(clips, on_gpu, strict=True)])
    left_h = videos * (fixed + each * video_s) * OVERHEAD / HOUR_S
    print(
        f"of it not detection, embedding or quality: {left_h:,.0f} core-hours; {scored:.1f} images scored a clip"
    )
    if gpu:
        peak, share = gpu
        work = topiq_tflop()
        gpu_h = videos * scored * work / (peak * share) / HOUR_S
        print(
            f"TOPIQ: {work:.3f} TFLOP an image; ESTIMATE for a GPU of {peak:g} TFLOP/s in float32, of which "
            f"{share:.0%} is reached: {gpu_h:,.0f} GPU-hours"
        )


def main() -> int:
    """Measure, work out, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the workflow, such as run.models_dir=/data/models")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW)
    parser.add_argument("--only", nargs="*", help="names of clips; all when left out")
    parser.add_argument("--videos", type=int, default=200_000)
    parser.add_argument("--video-s", type=float, default=10.0)
    parser.add_argument("--gpu-tflops", type=float, help="float32 peak of a GPU")
    parser.add_argument("--gpu-share", type=float, default=0.3, help="of the peak that is reached")
    parser.add_argument("--random-topiq", action="store_true", help="write the network to CLIPS, and end")
    options = parser.parse_args()
    if options.random_topiq:
        random_topiq(options.clips)
        return 0
    curation = Curation(options.clips, *options.overrides, workflow=options.workflow)
    kernels = KernelTimes(curation)
    paths = [path for path in sorted(options.clips.iterdir()) if path.suffix != ".tsv"]
    paths = [path for path in paths if not options.only or path.name in options.only]
    curation.curate(paths[0])  # warm-up
    with tempfile.TemporaryDirectory() as folder:
        clips = [measure(curation, kernels, path, Path(folder)) for path in paths]
    show(clips)
    accepted = [clip for clip in clips if clip.identities]
    if not accepted:
        print("no clip gives an identity")
        return 1
    gpu = (options.gpu_tflops, options.gpu_share) if options.gpu_tflops else None
    extrapolate(accepted, options.videos, options.video_s, gpu)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
