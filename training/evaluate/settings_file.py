"""What the generated images of an output depend on, so that images of two evaluations never mix.

Numbers of people and samples and the networks that measure are not in it: with others, the images that are there
remain valid, and only what is missing is generated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shards.atomic import write_bytes
from shards.canonical import indented_json
from training.errors import TrainingError
from training.evaluate.generate import SourceFacts
from training.evaluate.names import SETTINGS_FILE
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
    path = output / SETTINGS_FILE
    try:
        found = json.loads(path.read_bytes())
        assert isinstance(found, dict)  # noqa: S101 - handled below as damage
    except FileNotFoundError:
        if others := sorted(entry.name for entry in output.iterdir() if entry.name[0] != "."):
            raise TrainingError(
                f"{output} holds something else than an evaluation ({', '.join(others[:3])}). Give an empty "
                "directory"
            ) from None
        write_bytes(path, indented_json(settings))
        return
    except (OSError, ValueError, AssertionError) as error:
        raise TrainingError(f"{path} cannot be read. Give another output, or delete this one") from error
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
