"""The time of a build by step: stored beside the report, because the dataset itself contains no times.

    <output>/report/timings.parquet     one row a video: its id, and step -> seconds

Written and read in batches: a build has hundreds of thousands of videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.hashed import Hashes, contains, hashes, joined
from pipeline.report.quantiles import Quantiles, Values
from shards.metadata import DatasetError
from shards.streamed import table_batches
from shards.tables import open_rows
from storage.path import AnyPath

Seconds = Iterable[tuple[str, Mapping[str, float]]]
"""Id of a video and its time by step, in seconds; in any order."""

STEPS = (
    "fetch",
    "probe",
    "decode",
    "detect",
    "landmarks",
    "filter",
    "embed",
    "crop",
    "track",
    "select",
    "score",
)
"""The order in which a video goes through the steps; others come after these, by name."""
SLOWEST = 15
"""Videos shown one by one."""

_SPENT = pa.struct(
    [pa.field("step", pa.string(), nullable=False), pa.field("seconds", pa.float64(), nullable=False)]
)
SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("seconds", pa.list_(pa.field("element", _SPENT, nullable=False)), nullable=False),
    ]
)


@dataclass(frozen=True)
class Spread:
    """The times of all videos in one step; 0 where a video did not reach it."""

    median: float
    high: float
    """95% are shorter."""
    longest: float
    total: float


@dataclass(frozen=True)
class Timings:
    """Seconds of V videos in S steps.

    Attributes:
        steps: names, in the order in which a video goes through them.
        spreads: of each step.
        whole: of the sum of all steps.
        videos: (V,) sorted hashes of their ids.
        slowest: ids, the slowest first.
        slowest_s: (K, S) their seconds.
    """

    steps: list[str]
    spreads: list[Spread]
    whole: Spread
    videos: Hashes
    slowest: list[str]
    slowest_s: Values

    @property
    def totals(self) -> Values:
        """(S,) seconds of all videos."""
        return np.array([spread.total for spread in self.spreads])


def keep(path: AnyPath, seconds: Seconds) -> None:
    """Write the timings, to the millisecond, for later reports.

    Raises:
        OutOfSpace: the disk is full.
    """
    with open_rows(path, SCHEMA) as rows:
        for video_id, steps in seconds:
            spent = [{"step": step, "seconds": round(s, 3)} for step, s in steps.items()]
            rows.add({"video_id": video_id, "seconds": spent})


def kept(path: AnyPath) -> Iterator[pa.Table] | None:
    """The timings that an earlier report stored, in batches; None when there are none.

    Raises:
        DatasetError: the file is damaged; raised where the batches are read.
    """
    return _checked(path) if path.is_file() else None


def _checked(path: AnyPath) -> Iterator[pa.Table]:
    try:
        for batch in table_batches(path, SCHEMA):
            spent = pc.list_flatten(batch["seconds"].combine_chunks()).field("seconds").to_numpy()
            if not (np.isfinite(spent).all() and (spent >= 0).all()):
                raise DatasetError("a time is negative or not finite")
            yield batch
    except DatasetError as error:
        raise DatasetError(
            f"{path} cannot be read: {error}. Without the file, the report is made without timings"
        ) from error


def measure(batches: Iterable[pa.Table], known: Hashes) -> Timings | None:
    """The timings of a dataset's videos; None when there are none.

    Args:
        batches: rows of `SCHEMA`. They may name further videos, such as those erased since.
        known: sorted hashes of the ids of the dataset's videos.
    """
    steps: dict[str, _Step] = {}
    whole = _Step()
    timed: list[Hashes] = []
    slowest: list[tuple[float, str, dict[str, float]]] = []
    for batch in batches:
        ids, names, table = _matrix(batch)
        found = hashes(ids)
        spent = pc.list_value_length(batch["seconds"]).to_numpy() > 0
        rows = np.flatnonzero(contains(known, found) & spent)
        timed.append(found[rows])
        for place, name in enumerate(names):
            steps.setdefault(name, _Step()).add(table[rows, place])
        sums = table.sum(axis=1)
        whole.add(sums[rows])
        first = rows[np.lexsort((np.array(ids)[rows], -sums[rows]))][:SLOWEST]
        slowest += [
            (float(sums[row]), ids[row], dict(zip(names, table[row].tolist(), strict=True)))
            for row in first.tolist()
        ]
        slowest = sorted(slowest, key=lambda entry: (-entry[0], entry[1]))[:SLOWEST]
    videos = np.sort(joined(timed))
    if not len(videos):
        return None
    ordered = [step for step in STEPS if step in steps] + sorted(steps.keys() - set(STEPS))
    return Timings(
        steps=ordered,
        spreads=[steps[step].spread(len(videos)) for step in ordered],
        whole=whole.spread(len(videos)),
        videos=videos,
        slowest=[video for _, video, _ in slowest],
        slowest_s=np.array([[spent.get(step, 0.0) for step in ordered] for _, _, spent in slowest]),
    )


def totals_of(batch: pa.Table, steps: Iterable[str]) -> tuple[list[str], Values, Values]:
    """The ids of a batch's videos, and the seconds of each: in `steps`, and in all others."""
    ids, names, table = _matrix(batch)
    inside = np.isin(names, list(steps)) if names else np.zeros(0, bool)
    return ids, table[:, inside].sum(axis=1), table[:, ~inside].sum(axis=1)


class _Step:
    """The times of one step that have come."""

    def __init__(self) -> None:
        self._quantiles = Quantiles()
        self._total = 0.0

    def add(self, seconds: Values) -> None:
        self._quantiles.add(seconds)
        self._total += float(seconds.sum())

    def spread(self, videos: int) -> Spread:
        """Of all videos: those that have not come did not reach the step."""
        self._quantiles.add(np.zeros(videos - self._quantiles.count))
        median, high, longest = self._quantiles.at(0.5, 0.95, 1)
        return Spread(median, high, longest, self._total)


def _matrix(batch: pa.Table) -> tuple[list[str], list[str], Values]:
    """Ids of the B videos of a batch, names of its S steps, and the (B, S) seconds."""
    column = batch["seconds"].combine_chunks()
    rows = pc.list_parent_indices(column).to_numpy()
    spent = pc.list_flatten(column)
    steps = spent.field("step").dictionary_encode()
    table = np.zeros((len(batch), len(steps.dictionary)))
    table[rows, steps.indices.to_numpy()] = spent.field("seconds").to_numpy()
    return batch["video_id"].to_pylist(), steps.dictionary.to_pylist(), table
