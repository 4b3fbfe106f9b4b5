"""The tables and notes of a report, and `evaluation.md`, which is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IDENTITY_COLUMNS = {
    "similarity": "similarity",
    "similarity_to_others": "to others",
    "gain": "gain",
    "nearest": "nearest",
    "similarity_found": "faces found only",
    "similarity_usual_place": "at usual place",
    "gain_usual_place": "gain at usual place",
    "similarity_to_inputs": "to inputs",
    "copy_paste": "copy-paste",
    "copy_paste_nearest": "copy-paste, nearest",
}
IDENTITY_MEANINGS = {
    "similarity": "mean cosine of each generated image with each target; 0 without a face",
    "to others": "the same with the targets of all other people: chance",
    "gain": "similarity minus to others",
    "nearest": "share of people whose generated images are most similar to their own targets",
    "faces found only": "similarity over images with a face",
    "at usual place": "similarity where images without a face are embedded at the usual place of a face",
    "gain at usual place": "the gain, likewise",
    "to inputs": "mean cosine with the inputs",
    "copy-paste": "from -1 (equals the truth) to 1 (equals the input), mean over inputs; images with a face",
    "copy-paste, nearest": "the same with the most similar input; compare it with the last rows",
}
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table of a report; the reference rows are below the others."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    reference: Sequence[tuple[str, ...]]
    note: str = ""


def tables(document: Mapping[str, Any]) -> list[Table]:
    """The tables of `evaluation.json`."""
    return [
        *(_identity_table(document, network) for network in document["networks"]["identity"]),
        _pose_table(document),
        *([_comparison_table(document)] if document["comparisons"] else []),
    ]


def notes(document: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the tables."""
    people, networks = document["people"], document["networks"]
    pose = networks["pose"]
    found = [
        (
            f"{people['evaluated']} of {people['held_out']} held-out people are evaluated, one identity each. "
            f"Intervals are {document['bootstrap']['level']:.0%} bootstrap intervals over people."
        ),
        f"A generated image in which {networks['detector']['name']} finds no face has similarity 0 and no pose.",
    ]
    found += [_role(network, document) for network in networks["identity"]]
    found.append(_pose_role(pose))
    if unconditioned := [source["name"] for source in document["sources"] if not source["pose_conditioned"]]:
        found.append(
            f"Pose is not conditioned in {', '.join(unconditioned)}: the decoder does not receive the target's "
            "pose, so its pose error shows how the poses of its images are spread, not how well it follows a pose."
        )
    if conditioned := [source["name"] for source in document["sources"] if source["pose_conditioned"]]:
        found.append(
            f"{', '.join(conditioned)} generates each image with the landmark image of its target, so its pose "
            "error shows how well it follows a pose. A landmark image also shows the shape of the target's face, "
            "which may raise the similarity: compare it with sources that receive landmark images too."
        )
    for key, text in (
        ("left_out", "people are left out"),
        ("damaged", "identities are damaged or have too few images"),
        ("targets_not_found", "targets are left out, because no face is found in them"),
        ("inputs_not_found", "inputs count for no figure, because no face is found in them"),
    ):
        if people[key]:
            named = ", ".join(_place(entry) for entry in people[key][:5])
            more = f" and {len(people[key]) - 5} more (evaluation.json)" if len(people[key]) > 5 else ""
            found.append(f"{len(people[key])} {text}: {named}{more}.")
    if not _same_noise(document):
        found.append(
            "The sources generate images or latents of different sizes, so they do not start from the same noise: "
            "comparisons are paired by person and target only."
        )
    return found + [f"Warning: {warning}." for warning in document["warnings"]]


def markdown(document: Mapping[str, Any]) -> str:
    """`evaluation.md`."""
    dataset, protocol = document["dataset"], document["protocol"]
    parts = [
        "# Evaluation",
        (
            f"Dataset {dataset['name']} {dataset['version']} ({dataset['root']}, digest "
            f"{dataset['digest'][:12]}); "
            f"omniid {document['code_version']}; {protocol['samples']} generated image(s) a target."
        ),
        "\n".join(
            f"- {source['name']}: {source['path']}, step {source['step']:,}, {source['side']} px, representation "
            f"{source['representation']}, digest {source['digest'][:12]}; {source['steps']} sampling steps, "
            f"guidance {source['guidance']:g}, adapter scale {source['scale']:g}, identity guidance "
            f"{source['identity_guidance']:g}"
            for source in document["sources"]
        ),
        "\n".join(f"- {_escaped(note)}" for note in notes(document)),
    ]
    for table in tables(document):
        lines = [
            f"| {' | '.join(map(_escaped, row))} |" for row in (table.columns, *table.rows, *table.reference)
        ]
        lines.insert(1, "|" + "---|" * len(table.columns))
        parts += [f"## {_escaped(table.title)}", "\n".join(lines)]
        if table.note:
            parts.append(table.note)
    return "\n\n".join(parts) + "\n"


def main_figures(document: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal: the headline figures of each source and number of inputs, and the warnings."""
    name = document["networks"]["identity"][0]["name"]

    def line(result: Mapping[str, Any]) -> str:
        figures = result["figures"]
        parts = [
            f"similarity by {name} {stat_text(figures.get(f'{name}.similarity'))}",
            f"to others {stat_text(figures.get(f'{name}.similarity_to_others'))}",
            f"pose error {stat_text(figures.get('pose_error'), 1)}",
            f"faces found {stat_text(figures['faces_found'], 2)}",
        ]
        inputs = f"{result['inputs']} input{'s' if result['inputs'] > 1 else ''}"
        return f"{result['source']}, {inputs}: {', '.join(parts)}"

    warnings = [f"warning: {warning}" for warning in document["warnings"]]
    return [*map(line, document["results"]), *warnings]


def stat_text(stat: Mapping[str, Any] | None, digits: int = 3, *, signed: bool = False) -> str:
    """A mean with its interval: "0.512 [0.480, 0.544]"."""
    if stat is None:
        return NONE
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{stat['value']:{form}} [{stat['low']:{form}}, {stat['high']:{form}}]"


def _identity_table(document: Mapping[str, Any], network: Mapping[str, Any]) -> Table:
    name, levels = network["name"], document["levels"]
    rows = [
        (
            result["source"],
            str(result["inputs"]),
            *(stat_text(result["figures"].get(f"{name}.{figure}")) for figure in IDENTITY_COLUMNS),
        )
        for result in document["results"]
    ]

    def level(text: str, **keys: str) -> tuple[str, ...]:
        """A row of a reference level, with the name of the level of each column that it has."""
        found = {column: stat_text(levels.get(f"identity.{name}.{key}")) for column, key in keys.items()}
        return (text, "", *(found.get(figure, "") for figure in IDENTITY_COLUMNS))

    sides = sorted({source["side"] for source in document["sources"]})
    reference = [
        level("real: the inputs", similarity="real", similarity_to_others="real_to_others"),
        *(level(f"real: the inputs at {side} px", similarity=f"real_at_{side}") for side in sides),
        *(level(f"real: each target at {side} px", similarity=f"same_image_at_{side}") for side in sides),
        *(
            ("real: the other targets", str(k), *others[2:])
            for k in document["protocol"]["inputs"]
            for others in [
                level(
                    "", copy_paste=f"copy_paste_with_{k}", copy_paste_nearest=f"copy_paste_nearest_with_{k}"
                )
            ]
        ),
    ]
    note = "; ".join(f"{column}: {meaning}" for column, meaning in IDENTITY_MEANINGS.items()) + "."
    columns = ("source", "inputs", *IDENTITY_COLUMNS.values())
    return Table(f"Identity by {name}", columns, rows, reference, note)


def _pose_table(document: Mapping[str, Any]) -> Table:
    levels = document["levels"]
    rows = [
        (
            result["source"],
            str(result["inputs"]),
            stat_text(result["figures"].get("pose_error"), 1),
            str(result["poses_not_found"]),
            stat_text(result["figures"]["faces_found"]),
            str(result["faces_not_found"]),
            str(result["images"]),
        )
        for result in document["results"]
    ]

    def level(text: str, pose: str | None, faces: str | None = None) -> tuple[str, ...]:
        error = stat_text(levels.get(pose), 1) if pose else ""
        return (text, "", error, "", stat_text(levels.get(faces)) if faces else "", "", "")

    reference = [
        level("real: the inputs", "pose.inputs"),
        level("a frontal face", "pose.frontal"),
        *(
            level(f"real: each target at {side} px", f"pose.same_image_at_{side}", f"faces_found_at_{side}")
            for side in sorted({source["side"] for source in document["sources"]})
        ),
        level("real: each target, JPEG-encoded anew", "pose.reencoded"),
        level("real: each target mirrored, to the mirrored pose", "pose.mirrored"),
    ]
    columns = (
        "source",
        "inputs",
        "pose error, degrees",
        "poses not found",
        "faces found",
        "faces not found",
        "images",
    )
    note = (
        "pose error: |Δyaw| + |Δpitch| + |Δroll| to the image's own target, over images with a pose. The rows "
        "below a frontal face show the noise of the estimator."
    )
    return Table("Faces and pose", columns, rows, reference, note)


def _comparison_table(document: Mapping[str, Any]) -> Table:
    networks = [network["name"] for network in document["networks"]["identity"]]
    figures = [
        *(
            f"{name}.{figure}"
            for name in networks
            for figure in ("similarity", "gain", "gain_usual_place", "copy_paste_nearest")
        ),
        "pose_error",
        "faces_found",
    ]
    rows = [
        (
            f"{found['source']} minus {found['minus']}",
            str(found["inputs"]),
            *(
                stat_text(found["differences"].get(figure), 1 if figure == "pose_error" else 3, signed=True)
                for figure in figures
            ),
        )
        for found in document["comparisons"]
    ]
    titles = [figure.replace(".", ": ").replace("_", " ") for figure in figures]
    same = "inputs, targets and noise" if _same_noise(document) else "inputs and targets"
    note = (
        f"Differences person by person, from the same {same}. An interval without 0 in it is evidence of a "
        "difference. Pose errors are compared on images whose pose is known from both sources."
    )
    return Table("Comparisons", ("sources", "inputs", *titles), rows, [], note)


def _role(network: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parts = []
    if network["chose_data"]:
        parts.append("also chose the images of the dataset, which favours what it calls one person")
    if network["conditions"]:
        parts.append(f"conditions {', '.join(network['conditions'])}, which favours them")
    if not parts:
        if (
            not document["networks"]["pose"]["chose_data"]
            and not document["networks"]["detector"]["chose_data"]
        ):
            return f"{network['name']} is not among the networks that dataset.json names, nor conditions a source."
        return f"{network['name']} took no part in curation, nor conditions a source."
    return f"{network['name']} {' and '.join(parts)}: prefer the figures of a network that did neither."


def _pose_role(network: Mapping[str, Any]) -> str:
    parts = []
    if network["chose_data"]:
        parts.append("also chose the images of the dataset")
    if network["conditions"]:
        parts.append(f"found the landmarks that condition {', '.join(network['conditions'])}")
    if not parts:
        return f"Head pose is measured by {network['name']}."
    return (
        f"Head pose is measured by {network['name']}, which {' and '.join(parts)}: an error that it makes in both "
        "images is not counted."
    )


def _same_noise(document: Mapping[str, Any]) -> bool:
    """Whether all sources start from noise of one shape, as far as it is recorded, and have one side."""
    sides = {source["side"] for source in document["sources"]}
    shapes = {source["noise"] for source in document["sources"]} - {None}
    return len(sides) == 1 and len(shapes) <= 1


def _place(entry: Mapping[str, Any]) -> str:
    key = entry["key"] or entry["person"]
    return f"image {entry['image']} of {key}" if "image" in entry else str(key)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
