"""Contact sheets: the eight images of some identities as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from shards.metadata import DatasetError
from shards.sample import Sample
from shards.schema import IMAGE_SIDE, IdentityRecord, Pose

SIDE = 112
"""Side of a thumbnail in pixels."""
JPEG_QUALITY = 80
LONGEST_OUTLINE = 2000
"""Characters of an outline; that of a face has about 100, that of a mask in pieces may have a million."""


class Samples(Protocol):
    """What samples are read from."""

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample of this key."""
        ...

    def sample(self, key: str) -> Sample:
        """Read one sample.

        Raises:
            KeyError: there is no such sample.
            DatasetError: it is damaged.
        """


@dataclass(frozen=True)
class Thumbnail:
    """One image.

    Attributes:
        data_uri: JPEG of `SIDE` pixels.
        outline: SVG path around the face mask, in pixels of the thumbnail.
        pose: of the head, in degrees.
        quality: score.
        crop_px: side of the square in the source frame.
        face_px: face size in the source frame.
        time_s: of the source frame.
    """

    data_uri: str
    outline: str
    pose: Pose
    quality: float
    crop_px: float
    face_px: float
    time_s: float


@dataclass(frozen=True)
class Row:
    """One identity of a sheet; `error` states why there are no thumbnails."""

    key: str
    record: IdentityRecord | None
    thumbnails: list[Thumbnail]
    error: str | None = None

    @property
    def quality(self) -> float:
        """Mean score."""
        return float(np.mean([thumbnail.quality for thumbnail in self.thumbnails]))

    @property
    def crop_px(self) -> tuple[float, float]:
        """Smallest and largest side of the stored squares in the source frames."""
        sides = [thumbnail.crop_px for thumbnail in self.thumbnails]
        return min(sides), max(sides)

    @property
    def face_px(self) -> tuple[float, float]:
        """Smallest and largest face size."""
        sizes = [thumbnail.face_px for thumbnail in self.thumbnails]
        return min(sizes), max(sizes)


def sheet(samples: Samples, keys: list[str]) -> list[Row]:
    """The rows of a contact sheet; a sample that cannot be read is a row with the error."""
    return [_row(samples, key) for key in keys]


def _row(samples: Samples, key: str) -> Row:
    try:
        sample = samples.sample(key)
    except KeyError:
        return Row(key, None, [], "the index does not list it")
    except (DatasetError, OSError) as error:
        return Row(key, None, [], str(error))
    return Row(key, sample.record, thumbnails(sample, range(len(sample.images))))


def thumbnails(sample: Sample, places: Iterable[int]) -> list[Thumbnail]:
    """Small versions of some of a sample's images."""
    return [_thumbnail(sample, place) for place in places]


def _thumbnail(sample: Sample, place: int) -> Thumbnail:
    image = sample.record.images[place]
    return Thumbnail(
        data_uri=_data_uri(sample.images[place]),
        outline=mask_outline(sample.masks[place]),
        pose=image.pose,
        quality=image.quality.value,
        crop_px=image.crop_px[2],
        face_px=image.face_px,
        time_s=image.time_s,
    )


def mask_outline(png: bytes) -> str:
    """The mask's outer border as an SVG path in thumbnail pixels, accurate to one such pixel.

    Of a mask with a very long border, only the longest part is drawn, or nothing.
    """
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        mask = np.asarray(image.convert("L"))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, IMAGE_SIDE / SIDE, True).reshape(-1, 2) * (SIDE / IMAGE_SIDE)
        if len(points) >= 3:
            parts.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in points) + "Z")
    if sum(map(len, parts)) > LONGEST_OUTLINE:
        parts = [part for part in sorted(parts, key=len, reverse=True)[:1] if len(part) <= LONGEST_OUTLINE]
    return "".join(parts)


def _data_uri(jpeg: bytes) -> str:
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.draft("RGB", (SIDE * 2, SIDE * 2))
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
