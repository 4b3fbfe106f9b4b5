"""From the figures of all people to the result of an evaluation: means with intervals, and paired comparisons.

Letters in names give the shape:
    P  persons    E  channels of an embedding
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluate import measures
from training.evaluate.bootstrap import LEVEL, RESAMPLES, interval
from training.evaluate.figures import IDENTITY_FIGURES, GeneratedFigures, PersonFigures, Values

DIGITS = 6
"""Of figures in files."""
COUNTS = ("faces_found", "poses_found")
Stat = dict[str, float | int]
"""`value` with its `low` and `high` end, and the number of `people` behind it."""


@dataclass(frozen=True)
class PersonRow:
    """The figures of one person for one source and number of inputs, those that need other people included."""

    person: str
    key: str
    source: str
    inputs: int
    images: int
    values: Values
    """`faces_found`, `poses_found` (shares of the images), `pose_error` (degrees), `<network>.<figure>`."""
    pose_errors: dict[tuple[int, int], float]

    def as_json(self) -> dict[str, object]:
        """A line of the list of people."""
        return {
            "person": self.person,
            "key": self.key,
            "source": self.source,
            "inputs": self.inputs,
            "images": self.images,
            **{name: _rounded(value) for name, value in self.values.items()},
        }


def person_rows(people: Sequence[PersonFigures], networks: Sequence[str]) -> list[PersonRow]:
    """The figures of each person, source and number of inputs.

    Args:
        people: two at least, with the same sources and numbers of inputs.
        networks: names of the identity networks.
    """
    rows = []
    for source, inputs in people[0].generated:
        own = [person.generated[source, inputs] for person in people]
        others = {name: _beside_others(people, own, name) for name in networks}
        for place, (person, figures) in enumerate(zip(people, own, strict=True)):
            values: Values = {
                "faces_found": figures.found / figures.images,
                "poses_found": figures.poses / figures.images,
                "pose_error": figures.pose_error,
            }
            for name in networks:
                found = figures.identity[name] | {
                    figure: float(values_P[place]) for figure, values_P in others[name].items()
                }
                values |= {f"{name}.{figure}": found[figure] for figure in IDENTITY_FIGURES}
            rows.append(
                PersonRow(
                    person.person, person.key, source, inputs, figures.images, values, figures.pose_errors
                )
            )
    return rows


def levels(people: Sequence[PersonFigures], networks: Sequence[str]) -> dict[str, Stat]:
    """Reference levels of real images, by name."""
    per_person = [dict(person.levels) for person in people]
    for name in networks:
        with_inputs = [place for place, person in enumerate(people) if person.input_means[name] is not None]
        targets_PE = np.stack([person.target_means[name] for person in people])
        sum_E = targets_PE.sum(axis=0)
        for place in with_inputs:
            others_E = (sum_E - targets_PE[place]) / (len(people) - 1)
            per_person[place][f"identity.{name}.real_to_others"] = float(
                others_E @ people[place].input_means[name]
            )
    found = sorted({name for person in per_person for name in person})
    stats = {name: stat(person.get(name) for person in per_person) for name in found}
    return {name: figure for name, figure in stats.items() if figure is not None}


def results(rows: Sequence[PersonRow]) -> list[dict[str, object]]:
    """Means over people with their intervals, for each source and number of inputs."""
    return [
        {
            "source": source,
            "inputs": inputs,
            "people": len(own),
            "images": sum(row.images for row in own),
            "faces_not_found": sum(round(row.images * (1 - _number(row, "faces_found"))) for row in own),
            "poses_not_found": sum(round(row.images * (1 - _number(row, "poses_found"))) for row in own),
            "figures": _stats({name: [row.values[name] for row in own] for name in own[0].values}),
        }
        for (source, inputs), own in _grouped(rows).items()
    ]


def comparisons(rows: Sequence[PersonRow], first: str) -> list[dict[str, object]]:
    """Every other source minus the first one, person by person."""
    groups = _grouped(rows)
    found: list[dict[str, object]] = []
    for (source, inputs), own in groups.items():
        if source == first:
            continue
        pairs = list(zip(own, groups[first, inputs], strict=True))
        differences: dict[str, list[float | None]] = {
            name: [_minus(one.values[name], other.values[name]) for one, other in pairs]
            for name in own[0].values
        }
        # Of images whose pose is known from both sources, so that the same images are compared.
        differences["pose_error"] = [_paired_pose_error(one, other) for one, other in pairs]
        found.append({"source": source, "minus": first, "inputs": inputs, "differences": _stats(differences)})
    return found


def bootstrap_facts() -> dict[str, float | int]:
    """How intervals are computed."""
    return {"resamples": RESAMPLES, "level": LEVEL, "seed": 0}


def stat(values: Iterable[float | None]) -> Stat | None:
    """Mean and interval over the people who have a value; None when no one of them has."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return None
    low, high = interval(lambda mean: mean, known)
    return {
        "value": round(float(known.mean()), DIGITS),
        "low": round(low, DIGITS),
        "high": round(high, DIGITS),
        "people": len(known),
    }


def _stats(values: Mapping[str, Sequence[float | None]]) -> dict[str, Stat]:
    return {name: found for name, own in values.items() if (found := stat(own)) is not None}


def _beside_others(
    people: Sequence[PersonFigures], own: Sequence[GeneratedFigures], network: str
) -> dict[str, measures.Floats]:
    """Figures that compare a person's images with the targets of all people, (P,) each."""
    means_PE = np.stack([figures.means[network] for figures in own])
    targets_PE = np.stack([person.target_means[network] for person in people])
    others_P = measures.similarity_to_others(means_PE, targets_PE)
    usual_PE = np.stack([figures.usual_means[network] for figures in own])
    return {
        "similarity_to_others": others_P,
        "gain": (means_PE * targets_PE).sum(axis=1) - others_P,
        "gain_usual_place": (usual_PE * targets_PE).sum(axis=1)
        - measures.similarity_to_others(usual_PE, targets_PE),
        "nearest": measures.nearest_to_own(means_PE, targets_PE),
    }


def _grouped(rows: Sequence[PersonRow]) -> dict[tuple[str, int], list[PersonRow]]:
    groups: dict[tuple[str, int], list[PersonRow]] = {}
    for row in rows:
        groups.setdefault((row.source, row.inputs), []).append(row)
    return groups


def _paired_pose_error(one: PersonRow, other: PersonRow) -> float | None:
    both = sorted(one.pose_errors.keys() & other.pose_errors.keys())
    if not both:
        return None
    return sum(one.pose_errors[image] - other.pose_errors[image] for image in both) / len(both)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _number(row: PersonRow, name: str) -> float:
    value = row.values[name]
    assert value is not None  # noqa: S101 - counts are always known
    return value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
