"""The files of an evaluation. `evaluation.json` is written last; docs/evaluation.md describes its fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from faces.portraits import LANDMARKER
from faces.registry import WeightsFile
from settings.version import project_version
from shards.atomic import remove_file, write_bytes
from shards.canonical import indented_json
from training.data.dataset import StreamedDataset
from training.evaluate.comparison import SourceColumn, write_comparison
from training.evaluate.figures import PersonFigures
from training.evaluate.generate import SourceFacts, crop_scale_warning
from training.evaluate.measuring import StoredFaces
from training.evaluate.names import (
    FORMAT_VERSION,
    IMAGES_FILE,
    PAGE_FILE,
    PEOPLE_FILE,
    RESULT_FILE,
    SHEET_FILE,
    SUMMARY_FILE,
)
from training.evaluate.networks import NetworkNames
from training.evaluate.page import render_page
from training.evaluate.protocol import Roles
from training.evaluate.result import PersonRow, bootstrap_facts, comparisons, levels, person_rows, results
from training.evaluate.summary import main_figures, markdown

FEW_PEOPLE = 20
"""Below so many, intervals are much too narrow."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured of all people.

    Attributes:
        people: their figures, in the order of the dataset.
        stored: what was found in the stored images of the people that were asked for, those that are left out
            included.
        held_out: people of the test split.
        sources: of images.
        networks: that measured.
        files: theirs, by name.
        dataset: on which was evaluated.
        inputs: numbers of inputs.
        samples: images generated for each target.
        noise: shape of each source's noise, by its name.
        shown: most people on the page.
    """

    people: list[PersonFigures]
    stored: list[StoredFaces]
    held_out: int
    sources: list[SourceFacts]
    networks: NetworkNames
    files: Mapping[str, WeightsFile]
    dataset: StreamedDataset
    inputs: tuple[int, ...]
    samples: int
    noise: Mapping[str, str]
    shown: int

    @cached_property
    def rows(self) -> list[PersonRow]:
        """The figures of each person, source and number of inputs."""
        return person_rows(self.people, self.networks.identity)


def write_report(evaluation: Evaluation, output: Path) -> list[str]:
    """Write all files of an evaluation.

    Returns:
        Lines for the user: the main figures, and where the report is.

    Raises:
        TrainingError: an image that the page shows cannot be read.
        OutOfSpace: the disk is full.
    """
    document = build_document(evaluation)
    remove_file(output / RESULT_FILE)
    write_bytes(output / PEOPLE_FILE, _json_lines(row.as_json() for row in evaluation.rows))
    images = (row for person in evaluation.people for row in person.images)
    write_bytes(output / IMAGES_FILE, _json_lines(images))
    text = markdown(document)
    write_bytes(output / SUMMARY_FILE, text.encode())
    page = render_page(
        document,
        evaluation.rows,
        evaluation.people,
        dataset=evaluation.dataset,
        output=output,
        shown=evaluation.shown,
    )
    write_bytes(output / PAGE_FILE, page.encode())
    columns = [
        SourceColumn(source.name, output, source.name, source.pose_conditioned)
        for source in evaluation.sources
    ]
    write_comparison(output / SHEET_FILE, evaluation.dataset, columns, evaluation.inputs)
    write_bytes(output / RESULT_FILE, indented_json(document))
    return [
        *main_figures(document),
        f"report: {output / PAGE_FILE}, {output / SUMMARY_FILE}, {output / RESULT_FILE}",
    ]


def build_document(evaluation: Evaluation) -> dict[str, Any]:
    """The content of `evaluation.json`; it holds no times, so the same evaluation gives the same bytes."""
    dataset, networks = evaluation.dataset, evaluation.networks
    chose_data = set(dataset.metadata.provenance.models.values())
    names = [network_facts(name, evaluation, chose_data) for name in networks.identity]
    first, *others = evaluation.sources
    return {
        "format_version": FORMAT_VERSION,
        "code_version": project_version(),
        "dataset": {
            "root": dataset.root,
            "name": dataset.metadata.name,
            "version": dataset.metadata.version,
            "digest": dataset.digest,
            "crop_scale": dataset.crop_scale,
        },
        "protocol": {
            "inputs": list(evaluation.inputs),
            "samples": evaluation.samples,
            "seeds": "hash of (person, target, sample)",
        },
        "sources": [
            source.model_dump(mode="json") | {"noise": evaluation.noise.get(source.name)}
            for source in evaluation.sources
        ],
        "networks": {
            "identity": names,
            "detector": network_facts(networks.detector, evaluation, chose_data),
            "pose": _pose_facts(evaluation, chose_data),
        },
        "people": _people(evaluation),
        "bootstrap": bootstrap_facts(),
        "levels": levels(evaluation.people, networks.identity),
        "results": results(evaluation.rows),
        "comparisons": comparisons(evaluation.rows, first.name) if others else [],
        "warnings": [
            *few_people_warnings(len(evaluation.people)),
            *(
                warning
                for source in evaluation.sources
                if (warning := crop_scale_warning(source, dataset.crop_scale)) is not None
            ),
        ],
    }


def few_people_warnings(people: int) -> list[str]:
    """A warning where the percentile bootstrap has too few people for its level."""
    if people >= FEW_PEOPLE:
        return []
    return [
        (
            f"{people} people are few: a 95 % percentile interval covers the truth in about 74 % of cases with 3 "
            "people, 85 % with 6 and 93 % with 44"
        )
    ]


def network_facts(name: str, evaluation: Evaluation, chose_data: set[str]) -> dict[str, Any]:
    """A network, whether it chose the images of the dataset, and which sources it conditions."""
    sha256 = evaluation.files[name].sha256
    return {
        "name": name,
        "sha256": sha256,
        "chose_data": sha256 in chose_data,
        "conditions": [source.name for source in evaluation.sources if source.recogniser_sha256 == sha256],
    }


def _pose_facts(evaluation: Evaluation, chose_data: set[str]) -> dict[str, Any]:
    """The Face Landmarker, which conditions sources too where it found the landmarks of the dataset."""
    facts = network_facts(LANDMARKER, evaluation, chose_data)
    conditioned = [source.name for source in evaluation.sources if source.pose_conditioned]
    return facts | {"conditions": conditioned if facts["chose_data"] else []}


def _people(evaluation: Evaluation) -> dict[str, Any]:
    measured = {person.person for person in evaluation.people}
    left_out = [person for person in evaluation.stored if person.person.id not in measured]
    return {
        "held_out": evaluation.held_out,
        "evaluated": len(evaluation.people),
        "left_out": [
            {
                "person": person.person.id,
                "key": person.key,
                "reason": "no identity can be used" if person.key is None else "no face found in any target",
            }
            for person in left_out
        ],
        "damaged": [
            {"person": person.person.id, "key": key, "problem": problem}
            for person in evaluation.stored
            for key, problem in sorted(person.damaged.items())
        ],
        "targets_not_found": _not_found(evaluation, lambda roles: roles.targets),
        "inputs_not_found": _not_found(evaluation, lambda roles: roles.inputs),
    }


def _not_found(evaluation: Evaluation, of: Callable[[Roles], tuple[int, ...]]) -> list[dict[str, Any]]:
    """Images of a role in which the detector finds no face."""
    return [
        {"person": person.person.id, "key": person.key, "image": number}
        for person in evaluation.stored
        if person.roles is not None
        for number in of(person.roles)
        if number not in person.keypoints
    ]


def _json_lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)
