"""What the generated images of an output depend on, so that images of two evaluations never mix.

Numbers of people and samples and the networks that measure are not in it: with others, the images that are there
remain valid, and only what is missing is generated. What a source is loaded around, and on which kind of device,
is compared only before images are generated: another machine may measure those that are there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def check_settings(output: Path, inputs: Sequence[int], sources: Sequence[SourceFacts], dataset: str) -> None:
    """Write the settings into a new output; in an existing one, compare them.

    Args:
        output: directory; made when missing.
        inputs: numbers of inputs, which decide the targets.
        sources: of images, with their steps and guidance.
        dataset: digest of the dataset's metadata.

    Raises:
        TrainingError: the output belongs to an evaluation with other settings, holds something else, or cannot be
            written to.
        OutOfSpace: the disk is full.
    """
    make_folder(output)
    settings: dict[str, Any] = {"inputs": list(inputs), "dataset": dataset}
    for source in sources:
        facts = source.model_dump(mode="json", include=DEFINING)
        settings |= {f"{source.name}.{name}": value for name, value in sorted(facts.items())}
    found = _read(output)
    if found is not None and not any((output / IMAGES_FOLDER).rglob("*.png")):
        # It ended before its first image, as when its settings could not be used.
        write_bytes(output / SETTINGS_FILE, indented_json(settings))
        return
    if found is None:
        if others := sorted(entry.name for entry in output.iterdir() if entry.name[0] != "."):
            raise TrainingError(
                f"{output} holds something else than an evaluation ({', '.join(others[:3])}). Give an empty "
                "directory"
            )
        write_bytes(output / SETTINGS_FILE, indented_json(settings))
        return
    of_loading = {key for source in sources for key in _keys_of_loading(source.name)}
    _compare(output, {name: value for name, value in found.items() if name not in of_loading}, settings)


def check_loaded(output: Path, source: str, loaded: Sequence[Loaded]) -> None:
    """Compare what the images of a source are generated with; write it before the first of them.

    Args:
        output: whose settings were checked (`check_settings`).
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
    settings = {f"{source}.{name}": value for name, value in asdict(first).items()}
    found = _read(output) or {}
    there = {name: found[name] for name in settings if name in found}
    if there or any((output / IMAGES_FOLDER / source).rglob("*.png")):
        _compare(output, there, settings)
    else:
        write_bytes(output / SETTINGS_FILE, indented_json(found | settings))


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


def _compare(output: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
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
