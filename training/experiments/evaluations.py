"""What `omniid evaluate` found of a row: its figures over seeds, and their differences from another row.

Evaluations of one dataset have the same people, targets and noise, and runs of one seed on one dataset have the
same order of samples. So rows are compared seed by seed, and with a single seed person by person.

Letters in names give the shape:
    Z  seeds    P  persons
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.engine.metrics import METRICS_FILE
from training.engine.output import RUN_FILE
from training.errors import TrainingError
from training.evaluate.bootstrap import interval
from training.evaluate.names import IMAGES_FILE, PEOPLE_FILE, RESULT_FILE, SETTINGS_FILE
from training.experiments.commands import is_done
from training.experiments.plan import Job
from training.experiments.result import Figure, Figures

Stat = tuple[float, float, float]
"""A mean, and the ends of its interval."""
SWAP_RATIO = "swap_ratio"
"""A figure of the run's own last validation (`training.evaluate.swap`), not of generated images. It has less noise
than similarity, but says only that the decoder uses the identity."""
LEAST_SEEDS = 2
"""For an interval over seeds."""
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 1, 2, … degrees of freedom."""


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of one source, as files.

    Attributes:
        folder: output of `omniid evaluate`.
        document: content of its `evaluation.json`.
        trained: output of the run that was evaluated.
    """

    folder: Path
    document: dict[str, Any]
    trained: Path

    @property
    def network(self) -> str:
        """The first identity network, which figures without a network's name are of."""
        return str(self.document["networks"]["identity"][0]["name"])

    @property
    def source(self) -> str:
        """Name of the source among the images."""
        return str(self.document["sources"][0]["name"])

    @property
    def pose_conditioned(self) -> bool:
        """Whether the source received the landmark images of the targets."""
        return bool(self.document["sources"][0]["pose_conditioned"])

    def figure(self, name: str, inputs: int) -> Stat | None:
        """Mean and interval over persons.

        Args:
            name: `similarity` and the like are of the first identity network, `NETWORK.similarity` of another;
                or `SWAP_RATIO`.
            inputs: number of input images.

        Returns:
            None where no person has the figure, such as the pose error when no face was found.
        """
        if name == SWAP_RATIO:
            return self._swap_ratio.get(inputs)
        figures = next(found["figures"] for found in self.document["results"] if found["inputs"] == inputs)
        stat = figures.get(name) or figures.get(f"{self.network}.{name}")
        return None if stat is None else (stat["value"], stat["low"], stat["high"])

    @cached_property
    def conditions(self) -> tuple[object, ...]:
        """What two evaluations must share to be compared.

        Data, networks that measured, and kind of device, precision and steps of the sampling.
        """
        networks = self.document["networks"]
        used = [*networks["identity"], networks["detector"], networks["pose"]]
        with _named(self.folder / SETTINGS_FILE):
            settings = json.loads((self.folder / SETTINGS_FILE).read_bytes())
        sampled = [settings.get(f"{self.source}.{name}") for name in ("device", "precision", "steps")]
        digest = self.document["dataset"]["digest"]
        return digest, *sampled, *((each["name"], each["sha256"]) for each in used)

    @property
    def warnings(self) -> list[str]:
        """What its own report warns of, and networks that measure in favour of the source."""
        identity = self.document["networks"]["identity"]
        conditions = [
            f"{network['name']} conditions this row and measures it"
            for network in identity
            if network["conditions"]
        ]
        chose = [
            f"{network['name']} measures, and chose the images of the dataset, so its figures are higher on them"
            for network in identity
            if network["chose_data"]
        ]
        return [*self.document["warnings"], *conditions, *chose]

    def of_people(self, name: str, inputs: int) -> dict[str, float]:
        """The figure of each person who has it."""
        rows = [row for row in self._people if row["inputs"] == inputs]
        values = {row["person"]: row.get(name, row.get(f"{self.network}.{name}")) for row in rows}
        return {person: value for person, value in values.items() if value is not None}

    def pose_errors(self, inputs: int) -> dict[tuple[str, int, int], float]:
        """Of each image whose pose is known, by person, target and sample."""
        return {
            (row["person"], row["target"], row["sample"]): row["pose_error"]
            for row in self._images
            if row["inputs"] == inputs and row["pose_error"] is not None
        }

    @cached_property
    def _swap_ratio(self) -> dict[int, Stat]:
        """By the number of inputs of the validation; empty where the run has none."""
        run = self.trained
        if not (run / RUN_FILE).is_file():
            return {}
        try:
            inputs = json.loads((run / RUN_FILE).read_bytes())["config"]["validation"]["inputs"]
            lines = map(json.loads, (run / METRICS_FILE).read_text(encoding="utf-8").splitlines())
            names = [f"val/{SWAP_RATIO}{end}" for end in ("", "_low", "_high")]
            found = [line for line in lines if names[0] in line]
            if not found:
                return {}
            value, low, high = (float(found[-1][name]) for name in names)
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(
                f"the validations of {run} cannot be read: {error}. Train it again"
            ) from error
        return {inputs: (value, low, high)}

    @cached_property
    def _people(self) -> list[dict[str, Any]]:
        return self._lines(PEOPLE_FILE)

    @cached_property
    def _images(self) -> list[dict[str, Any]]:
        return self._lines(IMAGES_FILE)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        with _named(self.folder / name):
            return [
                json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()
            ]


def read_evaluations(jobs: Sequence[Job], root: Path) -> dict[int, Evaluated]:
    """The evaluations of a row that are done, by their seed.

    Args:
        jobs: of all seeds.
        root: output directory of all experiments.

    Raises:
        TrainingError: the file of a result is damaged.
    """
    found = {}
    for seed, job in enumerate(jobs):
        if is_done(job, root):
            folder = job.output(root)
            with _named(folder / RESULT_FILE):
                document = json.loads((folder / RESULT_FILE).read_bytes())
            found[seed] = Evaluated(folder, document, job.needs[0].output(root))
    return found


def figures_of(
    evaluations: Mapping[int, Evaluated],
    names: Iterable[str],
    inputs: Iterable[int],
    paper: Mapping[str, Mapping[int, float]],
) -> Figures:
    """A row's figures: means over its seeds, beside the paper's.

    Args:
        evaluations: of the row, by seed.
        names: of the figures.
        inputs: numbers of input images.
        paper: the paper's figures of the row.
    """

    def figure(name: str, count: int) -> Figure | None:
        values = {seed: stat for seed, found in evaluations.items() if (stat := found.figure(name, count))}
        return _over_seeds(values, paper.get(name, {}).get(count)) if values else None

    return _by_name(names, inputs, figure)


def differences(
    own: Mapping[int, Evaluated],
    other: Mapping[int, Evaluated],
    names: Iterable[str],
    inputs: Iterable[int],
) -> Figures:
    """A row minus another, over the seeds and persons that both have.

    Args:
        own: evaluations of the row, by seed.
        other: of the other row.
        names: of the figures.
        inputs: numbers of input images.

    Returns:
        Without seeds that were evaluated under other conditions (`Evaluated.conditions`).
    """
    pairs = {
        seed: (own[seed], other[seed])
        for seed in sorted(own.keys() & other.keys())
        if own[seed].conditions == other[seed].conditions
    }

    def figure(name: str, count: int) -> Figure | None:
        found = {seed: stat for seed, pair in pairs.items() if (stat := _difference(*pair, name, count))}
        if name == SWAP_RATIO and len(found) < LEAST_SEEDS:
            return None  # validations are not kept by person
        return _over_seeds(found, None) if found else None

    return _by_name(names, inputs, figure)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t; from ten degrees of freedom on that of nine, which is larger."""
    return _T_95[min(degrees, len(_T_95)) - 1]


def _by_name(
    names: Iterable[str], inputs: Iterable[int], figure: Callable[[str, int], Figure | None]
) -> Figures:
    counts = tuple(inputs)
    found = {name: {count: one for count in counts if (one := figure(name, count))} for name in names}
    return {name: by_count for name, by_count in found.items() if by_count}


def _difference(own: Evaluated, other: Evaluated, name: str, inputs: int) -> Stat | None:
    """Mean and interval over the persons who have the figure in both; None where no person has it."""
    if name == SWAP_RATIO:
        mine, its = own.figure(name, inputs), other.figure(name, inputs)
        return (mine[0] - its[0], math.nan, math.nan) if mine and its else None
    if name == "pose_error":
        by_person = _pose_differences(own.pose_errors(inputs), other.pose_errors(inputs))
    else:
        first, second = own.of_people(name, inputs), other.of_people(name, inputs)
        by_person = {
            person: first[person] - second[person] for person in sorted(first.keys() & second.keys())
        }
    values_P = np.array(list(by_person.values()))
    if not len(values_P):
        return None
    return (float(values_P.mean()), *interval(lambda mean: mean, values_P))


def _pose_differences(
    own: Mapping[tuple[str, int, int], float], other: Mapping[tuple[str, int, int], float]
) -> dict[str, float]:
    """Mean difference of each person, over the images whose pose is known in both."""
    by_person: dict[str, list[float]] = {}
    for image in sorted(own.keys() & other.keys()):
        by_person.setdefault(image[0], []).append(own[image] - other[image])
    return {person: sum(values) / len(values) for person, values in by_person.items()}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}. Delete {path.parent / RESULT_FILE} and run the experiment again, "
            "which evaluates the images that are there anew"
        ) from error


def _over_seeds(values: Mapping[int, Stat], paper: float | None) -> Figure:
    """The mean over seeds; its interval is over seeds where there are several, else that over persons."""
    means_Z = np.array([mean for mean, _, _ in values.values()])
    mean = float(means_Z.mean())
    if len(values) == 1:
        ((_, low, high),) = values.values()
    else:
        half = t_quantile(len(values) - 1) * float(means_Z.std(ddof=1)) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return Figure(mean, low, high, {seed: value for seed, (value, _, _) in values.items()}, paper)
