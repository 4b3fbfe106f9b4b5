"""How wrong are estimates of the time that a build's curation still takes?

    python benchmarks/time_left.py OUTPUT...

Replays finished builds: the time of change of each staged file says when its video was finished, its content what
an analyser took. After each video but the first and last twentieth, an estimator says how much time is left, and
the truth is known. Columns are the mean and the median of the relative errors, and their bias. Two estimators:

| estimator | what |
|---|---|
| by number | the mean time a video since the start, times the number of videos that are left |
| by work | `pipeline.monitor.work_left`, which a build shows |

Builds of one run only: the time between two runs of a build would count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from pipeline.monitor.work_left import WorkLeft
from pipeline.sources.manifest import Video
from shards.schema import VideoOutcome

SKIPPED = 20
"""So many-th of the videos at the start and the end are left out: little is known, or little is left."""
SECONDS = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Finished:
    """A finished video.

    Attributes:
        video: as listed.
        at_s: when it was finished.
        seconds: that an analyser took.
    """

    video: Video
    at_s: float
    seconds: float


def finished(output: Path) -> list[Finished]:
    """The videos of a build, in the order in which they were finished."""
    found = []
    for path in output.glob(".staging/*/??/*.parquet"):
        (row,) = pq.read_table(path, columns=["outcome", "seconds"]).to_pylist()
        outcome = VideoOutcome.model_validate_json(row["outcome"])
        listed = {name: getattr(outcome, name) for name in ("video_id", "source", "uri", "bytes", "span_s")}
        video = Video(path=outcome.uri, modified_ns=0, **listed)
        seconds = sum(SECONDS.validate_json(row["seconds"]).values())
        found.append(Finished(video, path.stat().st_mtime, seconds))
    return sorted(found, key=lambda each: each.at_s)


def by_number(videos: list[Finished]) -> list[float | None]:
    """Estimates after each video, in seconds."""
    start = videos[0].at_s
    return [
        (each.at_s - start) / number * (len(videos) - 1 - number) if number else None
        for number, each in enumerate(videos)
    ]


def by_work(videos: list[Finished]) -> list[float | None]:
    """Estimates after each video, in seconds."""
    left = WorkLeft(each.video for each in videos)
    estimates = []
    for each in videos:
        left.finish(each.video, each.seconds, each.at_s)
        estimates.append(left.left_s(each.at_s))
    return estimates


def main() -> int:
    """Print the errors of each build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outputs", type=Path, nargs="+", metavar="OUTPUT", help="of finished builds")
    estimators: dict[str, Callable[[list[Finished]], list[float | None]]] = {
        "by number": by_number,
        "by work": by_work,
    }
    for output in parser.parse_args().outputs:
        videos = finished(output)
        end = videos[-1].at_s
        print(f"{output}: {len(videos)} videos in {end - videos[0].at_s:.0f} s")
        print(f"{'':<12} {'mean':>6} {'median':>6} {'bias':>6}")
        skipped = max(3, len(videos) // SKIPPED)
        for name, estimator in estimators.items():
            errors = np.array(
                [
                    estimate / (end - each.at_s) - 1
                    for estimate, each in zip(estimator(videos), videos, strict=True)
                    if estimate is not None and end > each.at_s
                ][skipped:-skipped]
            )
            size = np.abs(errors)
            print(f"{name:<12} {size.mean():>6.2f} {np.median(size):>6.2f} {errors.mean():>+6.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
