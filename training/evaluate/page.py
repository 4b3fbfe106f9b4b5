"""`index.html`: the tables of an evaluation, and images of the worst and the best people, in one file.

A person's images are the inputs, the targets' landmark images where a source is conditioned on them, the generated
images and the truth.

No script and no request: a content security policy forbids both. The template engine escapes all text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from faces.landmark_image import landmark_image
from shards.schema import IMAGE_SIDE
from training.data.dataset import StreamedDataset
from training.evaluate.chart import COLOURS, Point, Series, chart
from training.evaluate.figures import PersonFigures
from training.evaluate.generate import GeneratedImage, read_image
from training.evaluate.people import Identity, Person, read_identity
from training.evaluate.result import PersonRow
from training.evaluate.summary import notes, stat_text, tables

TEMPLATE = Path(__file__).parent / "template"
THUMBNAIL_PX = 112
JPEG_QUALITY = 85
SAMPLES_SHOWN = 2
"""Most images of a target."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"


@dataclass(frozen=True)
class Shown:
    """An image of a row."""

    data_uri: str
    caption: str
    missing: bool = False
    """No face was found in it."""


@dataclass(frozen=True)
class Line:
    """The images of one kind: inputs, landmark images, truth, or what a source generated from k inputs."""

    title: str
    detail: str
    images: list[Shown]


@dataclass(frozen=True)
class PersonBlock:
    """A person of the page."""

    person: str
    key: str
    rank: str
    lines: list[Line]


def render_page(
    document: Mapping[str, Any],
    rows: Sequence[PersonRow],
    people: Sequence[PersonFigures],
    *,
    dataset: StreamedDataset,
    output: Path,
    shown: int,
) -> str:
    """The page.

    Args:
        document: content of `evaluation.json`.
        rows: figures of each person, source and number of inputs.
        people: the same people.
        dataset: for their real images.
        output: directory with the generated images.
        shown: most people that are shown.

    Raises:
        TrainingError: an image cannot be read.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headline = document["networks"]["identity"][0]["name"]
    chosen = worst_and_best(rows, headline, shown)
    blocks = [
        _block(
            people,
            rows,
            person,
            rank=rank,
            network=headline,
            dataset=dataset,
            output=output,
            conditioned=[source for source in document["sources"] if source["pose_conditioned"]],
        )
        for person, rank in chosen
    ]
    return environment.get_template("evaluation.html.j2").render(
        document=document,
        policy=POLICY,
        style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        notes=notes(document),
        tables=tables(document),
        charts=_charts(document, headline),
        headline=headline,
        key_figures=_key_figures(document, headline),
        cell_html=_cell_html,
        colours=COLOURS,
        blocks=blocks,
    )


def worst_and_best(rows: Sequence[PersonRow], network: str, shown: int) -> list[tuple[str, str]]:
    """People with their ranks: the worst, the best, the second worst, the second best, and so on.

    Args:
        rows: of all people.
        network: by whose similarity, of the first source with the most inputs.
        shown: most people.
    """
    most = max(row.inputs for row in rows)
    first = rows[0].source
    own = [row for row in rows if row.source == first and row.inputs == most]
    ranked = sorted(own, key=lambda row: (row.values[f"{network}.similarity"] or 0.0, row.person))
    count = len(ranked)
    turns = [place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(min(shown, count))]
    return [(ranked[place].person, f"{count - place} of {count} by similarity") for place in turns]


def _block(
    people: Sequence[PersonFigures],
    rows: Sequence[PersonRow],
    person: str,
    *,
    rank: str,
    network: str,
    dataset: StreamedDataset,
    output: Path,
    conditioned: Sequence[Mapping[str, Any]],
) -> PersonBlock:
    figures = next(found for found in people if found.person == person)
    identity, _ = read_identity(dataset, Person(person, (figures.key,)))
    lines: list[Line] = []
    if identity is not None:
        lines.append(_stored("inputs, in order", identity, figures.inputs, figures.inputs_not_found))
        if conditioned:
            lines.append(_landmark_images(identity, figures.targets, conditioned))
    by_place: dict[tuple[object, object], list[dict[str, Any]]] = {}
    for image in figures.images:
        by_place.setdefault((image["source"], image["inputs"]), []).append(image)
    for row in rows:
        if row.person != person:
            continue
        images = [
            _generated(output, image, network)
            for image in by_place[row.source, row.inputs]
            if image["sample"] < SAMPLES_SHOWN
        ]
        lines.append(
            Line(
                f"{row.source}, {row.inputs} input{'s' if row.inputs > 1 else ''}",
                _detail(row, network),
                images,
            )
        )
    if identity is not None:
        lines.append(_stored("truth", identity, figures.targets))
    return PersonBlock(person, figures.key, rank, lines)


def _stored(title: str, identity: Identity, numbers: Sequence[int], missing: Collection[int] = ()) -> Line:
    """Stored images of an identity."""
    return Line(
        title,
        "",
        [Shown(data_uri(identity.images_KSSC[n]), f"image {n}", missing=n in missing) for n in numbers],
    )


def _landmark_images(
    identity: Identity, targets: Sequence[int], conditioned: Sequence[Mapping[str, Any]]
) -> Line:
    """What pose-conditioned sources receive of the targets; at the side of the first of them."""
    side = conditioned[0]["side"]
    return Line(
        "landmark images",
        f"condition of {', '.join(source['name'] for source in conditioned)}",
        [
            Shown(data_uri(landmark_image(identity.landmarks_KL2[n], IMAGE_SIDE, side)), f"of image {n}")
            for n in targets
        ],
    )


def _detail(row: PersonRow, network: str) -> str:
    parts = [f"similarity {row.values[f'{network}.similarity']:.3f}"]
    if (score := row.values[f"{network}.copy_paste_nearest"]) is not None:
        parts.append(f"copy-paste {score:+.2f}")
    if (error := row.values["pose_error"]) is not None:
        parts.append(f"pose error {error:.0f}°")
    return ", ".join(parts)


def _generated(output: Path, image: Mapping[str, Any], network: str) -> Shown:
    place = GeneratedImage(
        *(image[name] for name in ("source", "key", "person", "inputs", "target", "sample"))
    )
    found = bool(image["face_found"])
    caption = f"{image['similarity'][network]:.2f} for image {image['target']}" if found else "no face found"
    return Shown(data_uri(read_image(output, place)), caption, missing=not found)


def data_uri(image_SSC: NDArray[np.uint8]) -> str:
    """A thumbnail that is part of the page."""
    small = Image.fromarray(image_SSC).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _cell_html(text: str) -> Markup:
    """A cell with its interval below the value."""
    value, interval = _split(text)
    below = Markup('<span class="soft">{}</span>').format(interval) if interval else Markup("")
    return escape(value) + below


def _split(text: str) -> tuple[str, str]:
    """Value and interval of a figure."""
    value, bracket, interval = text.partition(" [")
    return value, f"[{interval}" if bracket else ""


def _key_figures(document: Mapping[str, Any], network: str) -> list[tuple[str, str, str, str]]:
    """The main figures of the first source with the most inputs: title, value, interval, detail."""
    most = max(document["protocol"]["inputs"])
    first = document["sources"][0]["name"]
    figures = next(
        result["figures"]
        for result in document["results"]
        if result["source"] == first and result["inputs"] == most
    )
    of = f"{first}, {most} inputs"
    people = document["people"]
    return [
        ("People", str(people["evaluated"]), "", f"of {people['held_out']} held out"),
        ("Identity similarity", *_split(stat_text(figures[f"{network}.similarity"])), f"{network}, {of}"),
        (
            "Gain over chance",
            *_split(stat_text(figures[f"{network}.gain"])),
            "over the similarity to other people",
        ),
        ("Pose error, degrees", *_split(stat_text(figures.get("pose_error"), 1)), of),
        ("Faces found", f"{figures['faces_found']['value']:.0%}", "", of),
    ]


def _charts(document: Mapping[str, Any], network: str) -> list[tuple[str, Markup]]:
    """Figures against the number of inputs, as SVG."""
    shown = (
        (f"{network}.similarity", f"Identity similarity ({network})"),
        (f"{network}.copy_paste_nearest", f"Copy-paste, nearest input ({network})"),
        ("pose_error", "Pose error, degrees"),
    )
    levels = {
        f"{network}.similarity": [
            ("ceiling", document["levels"].get(f"identity.{network}.real")),
            ("chance", document["levels"].get(f"identity.{network}.real_to_others")),
        ],
        "pose_error": [("frontal", document["levels"].get("pose.frontal"))],
    }
    charts = []
    for figure, title in shown:
        series = [
            Series(
                source["name"],
                [
                    Point(result["inputs"], stat["value"], stat["low"], stat["high"])
                    for result in document["results"]
                    if result["source"] == source["name"] and (stat := result["figures"].get(figure))
                ],
            )
            for source in document["sources"]
        ]
        lines = [(name, stat["value"]) for name, stat in levels.get(figure, []) if stat]
        charts.append((title, chart([one for one in series if one.points], lines)))
    return charts
