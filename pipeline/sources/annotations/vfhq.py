"""VFHQ's clip names and annotation files.

    Clip+<id>+P<person>+C<clip>+F<start>-<end>

The person is a number within the video: clips of one id and one number show one person, other numbers another. An
annotation file, `meta_info/<clip name>.txt`, has a header, a line for each frame, and the crop of the whole clip:

    Video ...
    H: 1080
    W: 1920
    FPS: 29.97

    FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]

    <frame> <index> <x0> <y0> <w> <h> <x1> <y1> ... <x5> <y5>
    CROP <x0> <y0> <x1> <y1>

No genuine file was at hand: this follows the programs that read them, and refuses what deviates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.sources.annotations.clip import BEYOND, YOUTUBE_ID, AnnotatedClip, AnnotationError
from shards.schema import Box
from storage.path import AnyPath

_NAME = re.compile(
    rf"Clip\+(?P<origin>{YOUTUBE_ID})\+P(?P<person>\d+)\+C(?P<clip>\d+)\+F(?P<start>\d+)-(?P<end>\d+)"
)

HEADER = "FRAME INDEX X0 Y0 W H [Landmarks (5 Points)]"
FIRST_ROW = 7
"""Line of the first frame, counted from 0."""
FIELDS = 16
"""Numbers in the line of a frame."""


@dataclass(frozen=True)
class FrameBox:
    """The face in one frame.

    Attributes:
        frame: number in the video that the clip is cut from.
        box_px: x0, y0, x1, y1 in pixels of that video.
        points_px: five points of the face, likewise.
    """

    frame: int
    box_px: Box
    points_px: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class VfhqAnnotation:
    """An annotation file.

    Attributes:
        width: of the video's frames in pixels; `height` likewise.
        fps: frames a second.
        faces: one for each annotated frame, in order.
        crop_px: of the whole clip: x0, y0, x1, y1.
    """

    height: int
    width: int
    fps: float
    faces: list[FrameBox]
    crop_px: tuple[int, int, int, int]


def is_clip_name(name: str) -> bool:
    """Whether a file or a directory of this name is a clip."""
    return _NAME.fullmatch(name) is not None


def parse_clip_name(name: str) -> AnnotatedClip | None:
    """The clip that a name stands for; None for other names.

    Its frames are those between start and end, which the official programs leave out.
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match["end"]) - int(match["start"]) < 2:
        return None
    return AnnotatedClip(
        key=name,
        origin=match["origin"],
        part=match["origin"],
        frames=(int(match["start"]) + 1, int(match["end"]) - 1),
        person=f"P{match['person']}",
    )


def read_clip(path: AnyPath) -> Iterator[AnnotatedClip]:
    """The clip of an annotation file, which has its name: its box is the crop, which holds every frame's face.

    Raises:
        AnnotationError: the name or a line is not in the format.
        OSError: the file cannot be read.
    """
    clip = parse_clip_name(path.stem)
    if clip is None:
        raise AnnotationError(path, "its name", "expected Clip+<id>+P<person>+C<clip>+F<start>-<end>.txt")
    found = read_annotation(path)
    x0, y0, x1, y1 = found.crop_px
    box = (x0 / found.width, y0 / found.height, x1 / found.width, y1 / found.height)
    if min(box) < -BEYOND or max(box) > 1 + BEYOND:
        size = f"{found.width} x {found.height}"
        raise AnnotationError(path, "CROP", f"{x0} {y0} {x1} {y1} lies outside of the frame of {size}")
    yield replace(clip, box=box, frame_rate=found.fps)


def read_annotation(path: AnyPath) -> VfhqAnnotation:
    """An annotation file.

    Raises:
        AnnotationError: a line is not in the format.
        OSError: it cannot be read.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) < FIRST_ROW + 2 or not lines[0].startswith("Video"):
        raise AnnotationError(path, "line 1", "expected `Video ...`, a header, frames and a crop")
    values = [_value(path, number, lines[number], name) for number, name in enumerate(("H", "W", "FPS"), 1)]
    if lines[5].strip() != HEADER:
        raise AnnotationError(path, "line 6", f"expected {HEADER!r}, found {lines[5].strip()!r}")
    for number in (4, 6):
        if lines[number].strip():
            raise AnnotationError(path, f"line {number + 1}", "expected an empty line")
    *rows, last = [
        (number, line) for number, line in enumerate(lines) if number >= FIRST_ROW and line.strip()
    ]
    faces = [_face(path, number, line) for number, line in rows]
    for before, after in pairwise(faces):
        if after.frame <= before.frame:
            raise AnnotationError(path, f"frame {after.frame}", f"comes after frame {before.frame}")
    height, width, fps = values
    return VfhqAnnotation(int(height), int(width), fps, faces, _crop(path, *last))


def _value(path: AnyPath, number: int, line: str, name: str) -> float:
    text = line.removeprefix(f"{name}:").strip()
    value = _number(text)
    whole = name == "FPS" or (value is not None and value.is_integer())
    if not line.startswith(f"{name}:") or value is None or value <= 0 or not whole:
        raise AnnotationError(path, f"line {number + 1}", f"expected `{name}: <number>`, found {line!r}")
    return value


def _face(path: AnyPath, number: int, line: str) -> FrameBox:
    texts = line.split()
    values = [_number(text) for text in texts]
    known = [value for value in values if value is not None]
    if len(texts) != FIELDS or len(known) != FIELDS or not texts[0].isdecimal():
        raise AnnotationError(
            path, f"line {number + 1}", f"expected {FIELDS} numbers: frame, index, box, five points"
        )
    x, y, width, height = known[2:6]
    if width <= 0 or height <= 0:
        raise AnnotationError(path, f"line {number + 1}", f"a box of {width:g} x {height:g} pixels")
    points = tuple(zip(known[6::2], known[7::2], strict=True))
    return FrameBox(int(texts[0]), (x, y, x + width, y + height), points)


def _crop(path: AnyPath, number: int, line: str) -> tuple[int, int, int, int]:
    word, *texts = line.split()
    if word != "CROP" or len(texts) != 4 or not all(text.removeprefix("-").isdecimal() for text in texts):
        raise AnnotationError(
            path, f"line {number + 1}", "expected `CROP <x0> <y0> <x1> <y1>` as the last line"
        )
    x0, y0, x1, y1 = map(int, texts)
    if x1 <= x0 or y1 <= y0:
        raise AnnotationError(path, f"line {number + 1}", f"the crop {x0} {y0} {x1} {y1} is empty")
    return x0, y0, x1, y1


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
