"""Photographs of real people, cut from pictures that ship inside packages, and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from faces.types import Image
from pipeline.demo.photographs import PEOPLE

BORDER = 0.9
"""What a portrait shows around a face, in sizes of the face."""


def package_image(person: str) -> Image:
    """The whole picture that shows a person of the demo."""
    import importlib.util

    package, path = PEOPLE[person].source
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return np.asarray(Pillow.open(Path(spec.origin).parent / path).convert("RGB"))


def portrait(person: str, shift: int = 0, brightness: int = 0) -> Image:
    """A picture of one person; a shift in pixels and a brightness make it another photograph."""
    image, (x0, y0, x1, y1) = package_image(person), PEOPLE[person].box
    border = BORDER * (y1 - y0)
    left, top = max(0, int(x0 - border) + shift), max(0, int(y0 - border) + shift)
    cut = image[top : int(y1 + border) + shift, left : int(x1 + border) + shift]
    brighter: Image = np.clip(cut.astype(int) + brightness, 0, 255).astype(np.uint8)
    return brighter


def save(path: Path, image: Image) -> Path:
    """Write an image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(path, **({"quality": 95} if path.suffix in {".jpg", ".webp"} else {}))
    return path


def make_person(folder: Path, person: str, count: int) -> Path:
    """A directory with photographs of one person, each different from the others."""
    for number in range(count):
        save(folder / f"{number:02d}.jpg", portrait(person, shift=number % 5, brightness=2 * number))
    return folder


def png_that_claims(width: int, height: int) -> bytes:
    """The header of a PNG, and no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
