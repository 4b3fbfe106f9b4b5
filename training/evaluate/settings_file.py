"""What the generated images of an output depend on, so that images of two evaluations never mix.

Numbers of people and samples and the networks that measure are not in it: with others, the images that are there
remain valid, and only what is missing is generated. What a source is loaded around, and on which kind of device,
is compared only before images are generated: another machine may measure those that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from shards.atomic import write_bytes
from shards.canonical import indented_json
from training.errors import TrainingError
from training.evaluate.generate import Loaded, SourceFacts
from training.evaluate.names import IMAGES_FOLDER, SETTINGS_FILE
from training.folders import make_folder

DEFINING = {"digest", "flow_digest", "side", "steps", "guidance", "scale", "identity_guidance"}
"""Of a source: what its images depend on."""


def settings_of(inputs: Sequence[int], sources: Sequence[SourceFacts], dataset: str) -> dict[str, Any]:
    """What the generated images depend on, as far as it is known before sources are loaded.

    Args:
        inputs: numbers of inputs, which decide the targets.
        sources: of images, with their steps and guidance.
        dataset: digest of the dataset's metadata.
    """
    settings: dict[str, Any] = {"inputs": list(inputs), "dataset": dataset}
    for source in sources:
        facts = source.model_dump(mode="json", include=DEFINING)
        settings |= {f"{source.name}.{name}": value for name, value in sorted(facts.items())}
    return settings


def check_settings(output: Path, settings: Mapping[str, Any], sources: Sequence[str]) -> None:
    """Compare the settings with those of the images that are in an output.

    Args:
        output: directory; made when missing.
        settings: see `settings_of`.
        sources: their names.

    Raises:
        TrainingError: the output belongs to an evaluation with other settings, holds something else, or cannot be
            written to.
        OutOfSpace: the disk is full.
    """
    make_folder(output)
    found = _read(output)
    if found is not None:
        of_loading = {key for source in sources for key in _keys_of_loading(source)}
        _compare(output, {name: value for name, value in found.items() if name not in of_loading}, settings)
    elif others := sorted(entry.name for entry in output.iterdir() if entry.name[0] != "."):
        raise TrainingError(
            f"{output} holds something else than an evaluation ({', '.join(others[:3])}). Give an empty directory"
        )


def check_loaded(output: Path, settings: Mapping[str, Any], source: str, loaded: Sequence[Loaded]) -> None:
    """Compare what the images of a source are generated with; write all settings before the first image.

    An evaluation that ends earlier, as for too few people, leaves no settings that a next one must have.

    Args:
        output: of the images.
        settings: see `settings_of`.
        source: its name.
        loaded: of each rank that generates.

    Raises:
        TrainingError: images that are there were generated otherwise, or ranks differ.
        OutOfSpace: the disk is full.
    """
    first = loaded[0]
    for other in loaded:
        if other != first:
            raise TrainingError(
                f"the ranks generate the images of {source} with {first} and with {other}. Use one kind of device "
                "and the same --base on all machines"
            )
    found = _read(output) or {}
    # Another evaluation may have begun in this output since `check_settings`.
    _compare(output, {name: found[name] for name in settings if name in found}, settings if found else {})
    of_loading = {f"{source}.{name}": value for name, value in asdict(first).items()}
    there = {name: found[name] for name in of_loading if name in found}
    if there or any((output / IMAGES_FOLDER / source).rglob("*.png")):
        # Earlier versions did not record the noise, whose shape follows from what they did.
        unknown = {f"{source}.noise"} - there.keys() if there else set()
        _compare(output, there, {name: value for name, value in of_loading.items() if name not in unknown})
    written = {**found, **settings, **of_loading}
    if written != found:
        write_bytes(output / SETTINGS_FILE, indented_json(written))


def noise_shapes(output: Path, sources: Sequence[SourceFacts]) -> dict[str, str]:
    """Shape of the noise of each source whose images were generated, by its name (`Loaded.noise`)."""
    found = _read(output) or {}
    return {
        source.name: shape for source in sources if (shape := found.get(f"{source.name}.noise")) is not None
    }


def _keys_of_loading(source: str) -> list[str]:
    return [f"{source}.{field.name}" for field in fields(Loaded)]


def _read(output: Path) -> dict[str, Any] | None:
    """The settings of an output; None where there are none."""
    path = output / SETTINGS_FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read. Give another output, or delete this one") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path} cannot be read. Give another output, or delete this one")
    return found


def _compare(output: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Name what differs, as an error; what an earlier version did not record is null."""
    changed = [
        f"{name}: {json.dumps(found.get(name))} there, {json.dumps(settings.get(name))} now"
        for name in sorted(found.keys() | settings.keys())
        if found.get(name) != settings.get(name)
    ]
    if changed:
        listed = "\n".join(f"- {line}" for line in changed)
        raise TrainingError(
            f"{output} belongs to an evaluation with other settings:\n{listed}\nGive another output, or the "
            "settings of that evaluation"
        )
