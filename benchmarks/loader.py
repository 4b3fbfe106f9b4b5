"""How fast is the stream? Identities a second, beside the limit and beside other loaders, from disk and from S3.

    make bench-loader BENCH_ARGS="[--root MFHQ] [--identities 800] [--repeats 5] [--cores N]"

The limit decodes the same bytes from memory. The others are plain webdataset on the same tars, litdata and
mosaicml-streaming on the same files in their own formats. All give the same uint8 arrays of images and masks,
which is checked first; each has the same cores and no others. Repeats are interleaved, so that a noisy machine
disturbs all alike; ratios are medians over the repeats. A repeat from disk takes several epochs, without a start
in between, so that the batches that are in work when the clock starts do not count; from S3 the second epoch would
come from the caches that two of the loaders keep.

S3 is SeaweedFS on this machine. Object stores are other machines, so it gets half of the cores for itself, and the
loaders and the limit have the rest. It fetches whole chunks of a file for any range of it, which object stores do
not, so its chunks are made small.

Its packages are in a separate environment, which `make bench-loader` sets up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import loader_contenders as contenders
from loader_contenders import Contender, Setting
from loader_data import make_litdata, make_mds, make_mfhq, train_shards

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
from seaweed import S3Server, serving

LIMIT, IMAGES_LIMIT = "limit", "limit, images only"
Make = Callable[[], Contender]
T = TypeVar("T")
GOALS = {"disk": 0.9, "s3": 0.8}


def main() -> None:
    """Make the datasets, check that all loaders yield the same, measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, help="directory of a finished MFHQ; without it, one is made of a photograph"
    )
    parser.add_argument("--identities", type=int, default=800, help="of the dataset that is made")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of a repeat from disk; from S3 it is one")
    parser.add_argument("--cores", type=int, help="number of cores (all)")
    parser.add_argument("--side", type=int, default=224, help="of the model's input, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="measure only these loaders and the limit")
    parser.add_argument("--from", dest="sources", nargs="*", choices=GOALS, default=list(GOALS))
    parser.add_argument(
        "--work", type=Path, help="directory for the datasets, which are kept; a temporary one without it"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    if "s3" in options.sources and len(cores) < 2:
        parser.error("the S3 server needs its own core. Give --cores 2 or more, or --from disk")
    with tempfile.TemporaryDirectory(prefix="loader-") as temporary:
        work = options.work or Path(temporary)
        root = options.root or work / "mfhq"
        _make(work, root, options.identities)
        print(f"images of {options.side} px, batches of {options.batch}, {options.repeats} repeats")
        if "disk" in options.sources:
            os.sched_setaffinity(0, cores)
            setting = Setting(options.side, options.batch, len(cores), options.epochs)
            rivals = _chosen(_from_disk(work, root, setting), options.only)
            _compare("disk", {**_limits(root, setting), **rivals}, options.repeats)
        if "s3" in options.sources:
            served, cores = cores[: len(cores) // 2], cores[len(cores) // 2 :]
            setting = Setting(options.side, options.batch, len(cores))
            with _s3_server(Path(temporary), served) as server:
                os.sched_setaffinity(0, cores)
                rivals = _chosen(_from_s3(work, root, Path(temporary), server, setting), options.only)
                _compare("s3", {**_limits(root, setting), **rivals}, options.repeats)


def _make(work: Path, root: Path, identities: int) -> None:
    if not (root / "dataset.json").exists():
        print(f"making a dataset of {identities} identities", flush=True)
        make_mfhq(root, identities)
    for name, make in (("mds", make_mds), ("litdata", make_litdata)):
        if not (work / name).exists():
            make(root, work / name)


def _limits(root: Path, setting: Setting) -> dict[str, Make]:
    return {
        LIMIT: partial(contenders.raw, root, setting),
        IMAGES_LIMIT: partial(contenders.raw_images, root, setting),
    }


def _from_disk(work: Path, root: Path, setting: Setting) -> dict[str, Make]:
    tars = [str(root / shard.name) for shard in train_shards(root)]
    return {
        "ours": partial(contenders.ours, str(root), setting),
        "webdataset": partial(contenders.webdataset, tars, setting),
        "litdata": partial(contenders.litdata, str(work / "litdata"), setting),
        "mosaicml-streaming": partial(contenders.mosaic, str(work / "mds"), setting),
    }


def _from_s3(work: Path, root: Path, temporary: Path, server: S3Server, setting: Setting) -> dict[str, Make]:
    import obstore

    print("copying the datasets to S3", flush=True)
    mfhq = server.upload(root, "bench", "mfhq")
    litdata = server.upload(work / "litdata", "bench", "litdata")
    mds = server.upload(work / "mds", "bench", "mds")
    tars = [f"mfhq/{shard.name}" for shard in train_shards(root)]
    signed = obstore.sign(server.store("bench"), "GET", tars, timedelta(days=1))
    return {
        "ours": partial(contenders.ours, mfhq, setting),
        "webdataset": partial(contenders.webdataset, [f"pipe:curl -s '{url}'" for url in signed], setting),
        "litdata": partial(contenders.litdata, litdata, setting, temporary / "litdata-cache"),
        "mosaicml-streaming": partial(contenders.mosaic, mds, setting, temporary / "mds-cache"),
    }


@contextmanager
def _s3_server(temporary: Path, cores: list[int]) -> Iterator[S3Server]:
    folder = temporary / "seaweed"
    folder.mkdir()
    os.sched_setaffinity(0, cores)  # which the server inherits
    with serving(folder, ["-filer.maxMB=1"]) as server:
        os.environ.update(server.environment())
        os.environ["S3_ENDPOINT_URL"] = server.endpoint  # mosaicml-streaming's name for it
        yield server


def _chosen(found: dict[str, Make], only: list[str] | None) -> dict[str, Make]:
    return {name: run for name, run in found.items() if only is None or name in only}


def _compare(source: str, runs: dict[str, Make], repeats: int) -> None:
    expected = _alone(_sums, runs[LIMIT])
    for name in [name for name in runs if name not in (LIMIT, IMAGES_LIMIT)]:
        found = _alone(_sums, runs[name])
        # Ours stops at the last whole batch of an epoch.
        different = [key for key, value in found.items() if expected[key] != value]
        if different or len(found) < 0.9 * len(expected):
            raise SystemExit(
                f"{name} from {source}: {len(found)} identities, {len(different)} of them differ"
            )
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, make in runs.items():
            speeds[name].append(_alone(_speed, make))
    print(
        f"\nfrom {source:<14} {len(os.sched_getaffinity(0))} core(s) identities/s   images/s   of the limit"
        "   of the limit of images"
    )
    for name, values in speeds.items():
        ratios = [
            statistics.median(value / limit for value, limit in zip(values, speeds[of], strict=True))
            for of in (LIMIT, IMAGES_LIMIT)
        ]
        median = statistics.median(values)
        print(
            f"{name:<27} {median:>12.1f} {8 * median:>10.0f} {ratios[0]:>14.2f} {ratios[1]:>24.2f}",
            flush=True,
        )
    print(f"goal for ours: {GOALS[source]:.1f} of the limit")


def _alone(measure: Callable[[Make], T], make: Make) -> T:
    """Measure in a new process: threads, caches and runtimes of one loader do not meet another one's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, make).result()


def _speed(make: Make) -> float:
    """Identities a second, from the first batch on: starting up is not counted."""
    cv2.setNumThreads(1)
    batches = make()()
    next(batches)
    began = time.perf_counter()
    identities = sum(len(keys) for keys, _, _ in batches)
    return identities / (time.perf_counter() - began)


def _sums(make: Make) -> dict[str, int]:
    """For each identity a checksum of what was decoded."""
    return {
        key: zlib.crc32(masks[row].numpy().tobytes(), zlib.crc32(images[row].numpy().tobytes()))
        for keys, images, masks in make()()
        for row, key in enumerate(keys)
    }


if __name__ == "__main__":
    main()
