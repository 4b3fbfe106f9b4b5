"""Evaluations for tests: a small run, the command, and images in place of generated ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from control_runs import control_run
from flow_runs import SCRATCH, as_trained, flow_config, write_run
from typer.testing import CliRunner, Result

from training.cli import app
from training.data.dataset import open_dataset
from training.evaluate.generate import GeneratedImage, write_image
from training.evaluate.names import RESULT_FILE
from training.evaluate.networks import at_side
from training.evaluate.people import Identity, held_out_people, read_identity
from training.evaluate.protocol import roles
from training.model import build_model

INPUTS = (1, 5)
QUICK = ("--profile", "embedded", "--inputs", "1,5", "--steps", "1")
SIDE = 64


def write_flow_run(folder: Path, transformer: Path | None = None) -> Path:
    """A run of a flow decoder, of a transformer of its own or beside a frozen one."""
    scratch = SCRATCH | ({} if transformer is None else {"transformer": str(transformer)})
    config = flow_config(None, None, {"identity_dropout": 0.1, "scratch": scratch})
    return write_run(folder, config, as_trained(build_model(config)))


def write_control_run(folder: Path) -> Path:
    """A run of a control decoder, beside that of the flow decoder it started from."""
    return control_run(folder, {"scratch": SCRATCH}, flow_config(None, None))[0]


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def evaluated(*arguments: object) -> dict[str, Any]:
    """The result of an evaluation that must succeed."""
    result = called(*arguments)
    assert result.exit_code == 0, result.output
    output = Path(str(arguments[arguments.index("--output") + 1]))
    found: dict[str, Any] = json.loads((output / RESULT_FILE).read_bytes())
    return found


def refused(*arguments: object) -> str:
    """What an evaluation says that cannot be done."""
    result = called(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.stderr


def identities(data: Path) -> list[Identity]:
    dataset = open_dataset(str(data), 5.0)
    found = [read_identity(dataset, person)[0] for person in held_out_people(dataset)]
    return [identity for identity in found if identity is not None]


def replace_images(
    output: Path, data: Path, source: str, image: Callable[[Identity, tuple[int, ...], int], Any]
) -> None:
    """Put other images in place of those that a source generated.

    Args:
        output: of an evaluation.
        data: the dataset.
        source: name of the source.
        image: from the identity, its inputs and the target to an image of 512 pixels.
    """
    for identity in identities(data):
        own = roles(identity.key, INPUTS, identity.distinct)
        for k in INPUTS:
            for target in own.targets:
                place = GeneratedImage(source, identity.key, identity.person, k, target, 0)
                write_image(output, place, at_side(image(identity, own.inputs[:k], target), SIDE))


def figures(document: dict[str, Any], inputs: int = 5, source: str = "0-run") -> dict[str, Any]:
    """The figures of a source and number of inputs."""
    (found,) = [
        result["figures"]
        for result in document["results"]
        if result["inputs"] == inputs and result["source"] == source
    ]
    return dict(found)


def pngs(output: Path) -> Iterator[Path]:
    yield from sorted((output / "images").rglob("*.png"))
