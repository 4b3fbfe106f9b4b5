"""A sheet that shows what several sources make of the same people: inputs | pose | sources | truth.

The layout of Omni-ID's figures 2 and 7. The people are the first of the evaluation, not chosen by any figure.

Letters in names give the shape:
    H  height of the sheet    W  width    C  colour channels (3, RGB)    S  side of an image in pixels
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faces.landmark_image import landmark_image
from shards.atomic import write_bytes
from shards.schema import IMAGE_SIDE
from training.data.dataset import StreamedDataset
from training.errors import TrainingError
from training.evaluate.generate import GeneratedImage, read_image
from training.evaluate.names import IMAGES_FILE
from training.evaluate.people import Person, read_identity
from training.evaluate.protocol import roles
from training.evaluate.sheet import Tiles, make_sheet, tile_of

ROWS = 8
"""People of a sheet."""


@dataclass(frozen=True)
class SourceColumn:
    """Images of one source.

    Attributes:
        caption: above them.
        folder: output of the evaluation that generated them.
        source: its name there.
        pose_conditioned: whether it received the landmark image of the target.
    """

    caption: str
    folder: Path
    source: str
    pose_conditioned: bool = False


def write_comparison(
    path: Path, dataset: StreamedDataset, columns: Sequence[SourceColumn], inputs: Sequence[int]
) -> None:
    """Write the sheet of sources that were evaluated alike, as PNG.

    Args:
        path: of the file.
        dataset: that they were evaluated on.
        columns: of the sources.
        inputs: all numbers of input images of the evaluations; the images from the most are shown.

    Raises:
        TrainingError: an image cannot be read.
        OutOfSpace: the disk or the quota is full.
    """
    encoded = io.BytesIO()
    Image.fromarray(comparison_sheet(dataset, columns, inputs)).save(encoded, "PNG")
    write_bytes(path, encoded.getvalue())


def comparison_sheet(
    dataset: StreamedDataset, columns: Sequence[SourceColumn], inputs: Sequence[int], rows: int = ROWS
) -> NDArray[np.uint8]:
    """The first target of each person, as each source generated it.

    Args:
        dataset: that the sources were evaluated on.
        columns: of the sources.
        inputs: all numbers of input images of the evaluations; the images from the most are shown.
        rows: people at most.

    Returns:
        (H, W, C), RGB.

    Raises:
        TrainingError: an image cannot be read.
    """
    most = max(inputs)
    generated = [_generated(column, most) for column in columns]
    with_pose = any(column.pose_conditioned for column in columns)
    lines: list[Tiles] = []
    for key, image in generated[0].items():
        if len(lines) == rows or any(key not in own for own in generated):
            continue
        identity, _ = read_identity(dataset, Person(image.person, (key,)), most + 1)
        if identity is None:
            continue
        shown = [identity.images_KSSC[number] for number in roles(key, inputs, identity.distinct).inputs]
        if with_pose:
            shown.append(landmark_image(identity.landmarks_KL2[image.target], IMAGE_SIDE, IMAGE_SIDE))
        shown += [read_image(column.folder, own[key]) for column, own in zip(columns, generated, strict=True)]
        lines.append([tile_of(each) for each in (*shown, identity.images_KSSC[image.target])])
    captions = [
        *(f"input {number + 1}" for number in range(most)),
        *(["pose"] if with_pose else []),
        *(column.caption for column in columns),
        "truth",
    ]
    return make_sheet(captions, lines)


def _generated(column: SourceColumn, inputs: int) -> dict[str, GeneratedImage]:
    """The first image of each identity from a number of inputs, in the order of the evaluation."""
    found: dict[str, GeneratedImage] = {}
    path = column.folder / IMAGES_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    for line in lines:
        if line["source"] == column.source and line["inputs"] == inputs and line["sample"] == 0:
            fields = (line[name] for name in ("source", "key", "person", "inputs", "target", "sample"))
            found.setdefault(line["key"], GeneratedImage(*fields))
    return found
