"""How fast is a dataset packed and verified? Beside the disk and the decoders, in one run.

    python benchmarks/packing.py CLIPS [--identities 2000] [--repeats 5] [--folder DIR]

A few clips are curated once; their results are then staged as if many videos had given them. The measurements are
interleaved, on the same bytes:

| row | what |
|---|---|
| disk | the shards' bytes, written from memory to one file after another and flushed to the disk |
| pack | `pipeline.pack`: read the staged files, check, link, write shards, tables and dataset.json |
| decode | every JPEG and every mask decoded from memory as `verify` decodes them, a thread for each CPU |
| verify | `shards.verify`: read the dataset back, check and decode everything |
| pack+ | pack by a process for each CPU, which stay for all repeats, as those of a cluster do |
| verify+ | verify by the same processes |

The last lines are the medians of pack / disk, verify / decode, and of each by processes. A process takes seconds
to start, which the first repeat shows and the medians do not.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from curation import Curation
from PIL import Image
from rich.console import Console

from faces.profiles import required_files
from faces.registry import Weights, load_weights
from pipeline.cluster.workers import Processes, Workers
from pipeline.config import Config
from pipeline.pack import pack
from pipeline.plan import BuildPlan
from pipeline.progress import Reporter
from pipeline.sources.manifest import Manifest, Video
from pipeline.stages.finalize import FinalizedVideo, sample_key
from pipeline.staging import Staging
from pipeline.thresholds import with_thresholds
from shards.canonical import sha256_hex
from shards.layout import DATASET_JSON
from shards.metadata import DatasetMetadata
from shards.reader import Dataset
from shards.verify import verify
from storage.ahead import map_ahead

ENOUGH_CLIPS = 8
"""So many different ones are copied."""
EMBEDDING = 128
"""Length of SFace's vectors."""
CHUNK = 8 * 2**20
"""Bytes of one write of the row `disk`."""
CHUNK_IMAGES = 64


def main() -> int:
    """Curate, stage copies, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--identities", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; the system's temporary one if not given"
    )
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        output = Path(folder) / "mfhq"
        curation = Curation(options.clips, f"output={output}", "faces.min_crop_px=220", "people.keep=all")
        weights = load_weights(required_files(curation.config.models.names, None), None)
        config = with_thresholds(curation.config, weights)
        plan = staged_copies(
            curated(curation, options.clips), options.identities, Staging.of(output, "0" * 64)
        )
        packed = packed_anew(config, weights, plan)
        shards = [(output / shard.name).read_bytes() for shard in packed.shards]
        jpegs, masks = members(output)
        size = sum(map(len, shards))
        print(
            f"{packed.counts.images} images in {len(shards)} shards, {size / 1e6:,.0f} MB; "
            f"{os.cpu_count()} CPUs",
            flush=True,
        )
        rows = {
            "disk": lambda: written(shards, Path(folder)),
            "pack": lambda: packed_anew(config, weights, plan),
            "decode": lambda: decoded(jpegs, masks),
            "verify": lambda: verify(output),
            "pack+": lambda: packed_anew(config, weights, plan, workers),
            "verify+": lambda: verify(output, run=workers.run),
        }
        with StayingProcesses() as workers:
            seconds = interleaved(rows, options.repeats)
    for name, row in seconds.items():
        median = statistics.median(row)
        print(f"{name:<7} {median:7.2f} s  {size / 1e6 / median:8,.0f} MB/s")
    compared = (("pack", "disk"), ("verify", "decode"), ("pack+", "disk"), ("verify+", "decode"))
    for name, of in (*compared, ("pack+", "pack"), ("verify+", "verify")):
        ratio = statistics.median(other / own for own, other in zip(seconds[name], seconds[of], strict=True))
        print(f"{name} runs at {ratio:.2f} of {of}")
    return 0


def curated(curation: Curation, folder: Path) -> list[FinalizedVideo]:
    """The results of the first clips that give an identity."""
    paths = (path for path in sorted(folder.iterdir()) if path.suffix != ".tsv")
    results = (curation.curate(path).finalized for path in paths)
    return list(islice((result for result in results if result.identities), ENOUGH_CLIPS))


def staged_copies(results: list[FinalizedVideo], count: int, staging: Staging) -> BuildPlan:
    """The plan of a build whose videos, `count` or a few more, are all finished: copies of some results.

    Each has its own name and content, and shows another person.
    """
    random = np.random.default_rng(0)
    videos, identities = [], 0
    for number, result in enumerate(cycle(results)):
        if identities >= count:
            break
        uri = f"{number:07}.mp4"
        video = Video(
            video_id=f"folder/{uri}", source="folder", uri=uri, path=f"/{uri}", bytes=1, modified_ns=0
        )
        staging.write(video, _as_of(video, result, random))
        videos.append(video)
        identities += len(result.identities)
    return BuildPlan(Manifest(videos=videos), staging, [])


def _as_of(video: Video, result: FinalizedVideo, random: np.random.Generator) -> FinalizedVideo:
    known = {"video_id": video.video_id, "uri": video.uri, "bytes": 1}
    outcome = result.outcome.model_copy(update=known | {"sha256": sha256_hex(video.uri.encode())})
    tracks = [
        track.model_copy(update={"key": sample_key(outcome, track.track)}) if track.key else track
        for track in outcome.tracks
    ]
    vectors = random.normal(size=(len(result.identities), EMBEDDING))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    samples = [
        replace(
            sample,
            identity=sample.identity.model_copy(
                update={
                    "key": sample_key(outcome, sample.identity.track),
                    "embedding": vector.round(6).tolist(),
                }
            ),
        )
        for sample, vector in zip(result.samples, vectors, strict=True)
    ]
    return replace(result, outcome=outcome.model_copy(update={"tracks": tracks}), samples=samples)


class StayingProcesses(Processes):
    """Processes that stay until the end of the `with` block, so that imports are not measured again and again."""

    def __enter__(self) -> StayingProcesses:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._count, context)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(
        self, function: Callable[[Any], Any], items: Iterable[Any], check: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, Any]]:
        """As `Workers.run`."""
        del check
        yield from enumerate(map_ahead(function, items, self._pool, 2 * self._count))


def packed_anew(
    config: Config, weights: Weights, plan: BuildPlan, workers: Workers | None = None
) -> DatasetMetadata:
    """Pack, whether the dataset is there or not."""
    (config.output / DATASET_JSON).unlink(missing_ok=True)
    return pack(config, weights, plan, Reporter(Console(quiet=True)), workers=workers).metadata


def members(root: Path) -> tuple[list[bytes], list[bytes]]:
    """Bytes of all images and of all masks."""
    samples = list(Dataset.open(root).samples())
    return [data for s in samples for data in s.images], [data for s in samples for data in s.masks]


def written(shards: list[bytes], folder: Path) -> None:
    """Write the shards' bytes one after another, to the disk."""
    for number, shard in enumerate(shards):
        with (folder / f"sequential-{number}").open("wb", buffering=0) as file:
            for start in range(0, len(shard), CHUNK):
                file.write(memoryview(shard)[start : start + CHUNK])
            os.fsync(file.fileno())


def decoded(jpegs: list[bytes], masks: list[bytes]) -> None:
    """Decode everything, a chunk at a time, so that threads need not wait for each other."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(_decode_some, batched(jpegs, CHUNK_IMAGES), batched(masks, CHUNK_IMAGES)):
            pass


def _decode_some(jpegs: list[bytes], masks: list[bytes]) -> None:
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg, "GRAY", strict=True)
    for mask in masks:
        Image.open(io.BytesIO(mask)).load()


def batched(items: list[bytes], size: int) -> list[list[bytes]]:
    """The items in lists of `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def interleaved(rows: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, repeat after repeat, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            os.sync()
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
