"""What the report shows of the images: counted in two passes over their table, batch by batch.

The first pass finds the range of every measure, and the person of every identity. The second counts in bins, whose
width depends on the range, and notes the keys of those identities that the page shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.report import persons
from pipeline.report.distributions import (
    Extent,
    Histogram,
    HistogramCounter,
    Identities,
    PoseCounter,
    PoseMap,
    column,
    identities,
    unequal_rows,
)
from pipeline.report.hashed import Hashes, hashes, joined
from pipeline.report.persons import Group, Persons
from pipeline.report.quantiles import Values
from shards.layout import IMAGES
from shards.schema import IMAGES_PER_IDENTITY, Split
from shards.streamed import StreamedDataset

SEED = 20
RANDOM_IDENTITIES, WORST_IDENTITIES = 24, 12
LARGEST_PERSONS, SHOWN_OF_PERSON = 8, 12
SHOWN_METRICS = 8

DISTANCES, ANGLES = ("mean", "smallest", "largest"), ("yaw", "pitch", "roll")
_MEASURED = ("crop_side_px", "face_px", "eyes_open")
COLUMNS = (
    *("key", "split", "source", "person_id", *_MEASURED, *ANGLES, "identity_cosine"),
    *("quality_metric", "quality", "quality_higher_is_better"),
)


@dataclass(frozen=True)
class ImageCounts:
    """What the page shows of the images.

    Attributes:
        identities: number of them.
        metrics: quality metric -> whether higher is better; the commonest ones, by name.
        metrics_left_out: number of further metrics.
        metric: the commonest; empty without images.
        histograms: by measure: see `measures`.
        poses: None without images.
        persons: of all identities.
        random_keys: of a random sample without replacement, sorted.
        worst_keys: of the identities that `metric` scores worst, the worst first.
        largest: the persons with the most identities.
        named: number of an identity that `largest` shows -> its key and its person_id.
    """

    identities: int
    metrics: dict[str, bool]
    metrics_left_out: int
    metric: str
    histograms: dict[str, Histogram]
    poses: PoseMap | None
    persons: Persons
    random_keys: list[str]
    worst_keys: list[str]
    largest: list[Group]
    named: dict[int, tuple[str, str]]

    @property
    def higher_is_better(self) -> bool:
        """The direction of `metric`."""
        return self.metrics.get(self.metric, True)


def count_images(dataset: StreamedDataset, roll_weight: float) -> ImageCounts:
    """Read the images table twice.

    Args:
        dataset: of any size.
        roll_weight: of the pose distance, as in the selection of images.

    Raises:
        DatasetError: the table does not follow the format, or the rows of an identity are not consecutive.
    """
    first = _FirstPass()
    for batch in _batches(dataset):
        first.add(batch, identities(batch, roll_weight))
    found, shown = first.persons(), first.shown_metrics()
    groups = persons.largest(found, LARGEST_PERSONS, SHOWN_OF_PERSON)
    second = _SecondPass(first, _random_numbers(first.count), [n for group in groups for n in group.shown])
    for batch in _batches(dataset):
        second.add(batch, identities(batch, roll_weight))
    return ImageCounts(
        identities=first.count,
        metrics={metric: first.directions[metric] for metric in sorted(shown)},
        metrics_left_out=len(first.metrics) - len(shown),
        metric=shown[0] if shown else "",
        histograms={name: counter.histogram() for name, counter in second.histograms.items()},
        poses=second.poses.map() if first.count else None,
        persons=found,
        random_keys=sorted(second.random.values()),
        worst_keys=second.worst.keys,
        largest=groups,
        named=second.named,
    )


def measures(images: pa.Table, found: Identities) -> dict[str, Values]:
    """Everything that has a histogram, by name: of images, and of identities.

    Args:
        images: rows of the images table.
        found: the identities of these rows.
    """
    values = {name: column(images, name) for name in _MEASURED}
    known = images["identity_cosine"].drop_null()
    values["identity_cosine"] = known.to_numpy().astype(np.float64)
    for metric in pc.unique(images["quality_metric"]).to_pylist():
        part = images.filter(pc.equal(images["quality_metric"], metric))
        values[quality_of(metric)] = column(part, "quality")
    distances = found.distances_deg
    of_distances = (distances.mean(axis=1), distances.min(axis=1), distances.max(axis=1))
    for name, reduced in zip(DISTANCES, of_distances, strict=True):
        values[f"distance {name}"] = reduced
    for angle, name in enumerate(ANGLES):
        values[f"range {name}"] = found.ranges_deg[:, angle]
    return values


def quality_of(metric: str) -> str:
    """The name of a metric's histogram."""
    return f"quality {metric}"


def worst_first(keys: Values, badness: Values, count: int) -> list[int]:
    """Places of the identities with the highest badness; equal ones in the order of their keys."""
    places: list[int] = np.lexsort((keys, -badness))[:count].tolist()
    return places


@dataclass
class Worst:
    """The identities that one metric scores worst, of those that have come."""

    metric: str
    keys: list[str] = field(default_factory=list)
    badness: list[float] = field(default_factory=list)

    def add(self, found: Identities) -> None:
        """Take identities."""
        rows = found.metric == self.metric
        keys = np.array([*self.keys, *found.keys[rows].tolist()])
        badness = np.array([*self.badness, *found.badness[rows].tolist()])
        places = worst_first(keys, badness, WORST_IDENTITIES)
        self.keys, self.badness = keys[places].tolist(), badness[places].tolist()


class _FirstPass:
    """Ranges, metrics and persons."""

    def __init__(self) -> None:
        self.count = 0
        self.extents: dict[str, Extent] = {}
        self.yaw, self.pitch = Extent(), Extent()
        self.metrics: Counter[str] = Counter()
        self.directions: dict[str, bool] = {}
        self._keys: list[Hashes] = []
        self._persons: list[Hashes] = []
        self._sources: list[persons.Numbers] = []
        self._test: list[NDArray[np.bool_]] = []
        self._number_of_source: dict[str, int] = {}

    def add(self, images: pa.Table, found: Identities) -> None:
        self.count += len(found.keys)
        for name, values in measures(images, found).items():
            self.extents.setdefault(name, Extent()).add(values)
        self.yaw.add(column(images, "yaw"))
        self.pitch.add(column(images, "pitch"))
        metrics = images["quality_metric"].to_pylist()
        self.metrics.update(metrics)
        for metric, higher in zip(metrics, images["quality_higher_is_better"].to_pylist(), strict=True):
            self.directions.setdefault(metric, higher)
        of_identity = images.take(pa.array(range(0, len(images), IMAGES_PER_IDENTITY), pa.int64()))
        self._keys.append(hashes(found.keys.tolist()))
        self._persons.append(hashes(of_identity["person_id"].to_pylist()))
        self._test.append(np.array([split == Split.TEST for split in of_identity["split"].to_pylist()], bool))
        number = self._number_of_source
        sources = [number.setdefault(name, len(number)) for name in of_identity["source"].to_pylist()]
        self._sources.append(np.array(sources, np.int32))

    def persons(self) -> Persons:
        """Of all identities.

        Raises:
            DatasetError: a key occurs again.
        """
        if len(np.unique(joined(self._keys))) != self.count:
            raise unequal_rows()
        return Persons(
            person=persons.numbered(joined(self._persons)),
            source=np.concatenate([np.zeros(0, np.int32), *self._sources]),
            test=np.concatenate([np.zeros(0, bool), *self._test]),
            sources=list(self._number_of_source),
        )

    def shown_metrics(self) -> list[str]:
        """The commonest metrics first."""
        return [metric for metric, _ in self.metrics.most_common(SHOWN_METRICS)]


class _SecondPass:
    """Histograms, and the keys that are shown."""

    def __init__(self, first: _FirstPass, random: list[int], grouped: list[int]) -> None:
        shown = first.shown_metrics()
        hidden = {quality_of(metric) for metric in first.metrics} - {quality_of(metric) for metric in shown}
        same = {
            name: _common_step(first, names)
            for names in ([f"distance {n}" for n in DISTANCES], [f"range {n}" for n in ANGLES])
            for name in names
        }
        self.histograms = {
            name: HistogramCounter(extent, same.get(name))
            for name, extent in first.extents.items()
            if not extent.empty and name not in hidden
        }
        self.poses = PoseCounter(first.yaw, first.pitch)
        self.worst = Worst(shown[0] if shown else "")
        self.random: dict[int, str] = {}
        self.named: dict[int, tuple[str, str]] = {}
        self._random, self._grouped = np.sort(np.array(random, int)), np.sort(np.array(grouped, int))
        self._count = 0

    def add(self, images: pa.Table, found: Identities) -> None:
        for name, values in measures(images, found).items():
            if name in self.histograms:
                self.histograms[name].add(values)
        self.poses.add(column(images, "yaw"), column(images, "pitch"))
        self.worst.add(found)
        for number in self._here(self._random, len(found.keys)):
            self.random[number] = str(found.keys[number - self._count])
        for number in self._here(self._grouped, len(found.keys)):
            row = (number - self._count) * IMAGES_PER_IDENTITY
            self.named[number] = (images["key"][row].as_py(), images["person_id"][row].as_py())
        self._count += len(found.keys)

    def _here(self, ordered: NDArray[np.int64], count: int) -> list[int]:
        """Those of the numbers that are in this batch."""
        start, end = np.searchsorted(ordered, (self._count, self._count + count))
        here: list[int] = ordered[start:end].tolist()
        return here


def _batches(dataset: StreamedDataset) -> Iterator[pa.Table]:
    """The rows of the images table, those of an identity never in two batches."""
    rest: pa.Table | None = None
    for batch in dataset.batches(IMAGES, COLUMNS):
        table = batch if rest is None else pa.concat_tables([rest, batch])
        whole = len(table) - len(table) % IMAGES_PER_IDENTITY
        rest = table.slice(whole) if whole < len(table) else None
        if whole:
            yield table.slice(0, whole)
    if rest is not None:
        raise unequal_rows()


def _common_step(first: _FirstPass, names: list[str]) -> float:
    """Width of the bins of histograms that are drawn over each other, in degrees."""
    widest = max(first.extents[name].high for name in names) if first.count else 0.0
    return next(step for step in (1, 2, 2.5, 5, 10) if widest / step <= 50 or step == 10)


def _random_numbers(count: int) -> list[int]:
    rng = np.random.default_rng(SEED)
    numbers: list[int] = rng.choice(count, min(RANDOM_IDENTITIES, count), replace=False).tolist()
    return numbers
