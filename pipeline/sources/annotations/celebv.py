"""CelebV-HQ's and CelebV-Text's annotations: one JSON file, an entry for each clip.

| content | of |
|---|---|
| `{"meta_info": {"appearance_mapping": [...], "action_mapping": [...]}, "clips": {KEY: ENTRY}}` | CelebV-HQ |
| `{KEY.mp4: ENTRY}` | CelebV-Text, as released |
| `{"clips": {KEY: ENTRY}}` | CelebV-Text, its README |
| `{"clips_set1": {KEY: ENTRY}, "clips_set2": {KEY: ENTRY}}` | CelebV-Text, earlier |

An entry has `ytb_id`, `duration` in seconds of the download, and `bbox`: fractions of the frame, or pixels as
CelebV-Text's README shows it.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal, TypeVar

import ijson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.sources.annotations.clip import BEYOND, YOUTUBE_ID, AnnotatedClip, AnnotationError
from shards.schema import Attribute
from storage.path import AnyPath

META = "meta_info"
DEEPEST = 12
"""Levels of a file that is read; an entry has six."""
SETS = ("clips", "clips_set1", "clips_set2")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)


class _Duration(_Part):
    start_sec: float = Field(ge=0)
    end_sec: float


class _Box(_Part):
    top: float
    bottom: float
    left: float
    right: float


class _Emotion(_Part):
    emotion: str


class _Emotions(_Part):
    labels: str | list[_Emotion]


class _Attributes(_Part):
    appearance: list[Literal[0, 1]] | None = None
    action: list[Literal[0, 1]] | None = None
    emotion: _Emotions | None = None


class _Entry(_Part):
    ytb_id: str = Field(pattern=f"^{YOUTUBE_ID}$")
    duration: _Duration
    bbox: _Box
    attributes: _Attributes = _Attributes()


class _Meta(_Part):
    appearance_mapping: list[str] = []
    action_mapping: list[str] = []


def read_celebv(path: AnyPath) -> Iterator[AnnotatedClip]:
    """The clips of `celebvhq_info.json` or `celebvtext_info.json`, in the file's order.

    Raises:
        AnnotationError: the file, or an entry, is not in the format.
        OSError: it cannot be read.
    """
    sets, has_meta = _outline(path)
    with _opened(path) as file:
        meta: Any = next(ijson.items(file, META, use_float=True), {}) if has_meta else {}
    names = _validated(_Meta, meta, path, META)
    for name in sets:
        with _opened(path) as file:
            for key, entry in ijson.kvitems(file, name, use_float=True):
                yield _clip(path, key, entry, names)


def _outline(path: AnyPath) -> tuple[list[str], bool]:
    """The names of the objects that hold the entries, "" for the whole file; and whether there is `meta_info`.

    The file is read as a stream: parsed as a whole, it takes six times its size.
    """
    found: dict[str, bool] = {}
    name, depth = "", 0
    with _opened(path) as file:
        for event, value in ijson.basic_parse(file):
            if not depth and event != "start_map":
                raise AnnotationError(path, "the whole file", "expected an object")
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > DEEPEST:
                raise AnnotationError(path, f"entry {name!r}", f"more than {DEEPEST} levels deep")
            if event == "map_key" and depth == 1:
                name, found[value] = value, False
            elif event == "map_key" and depth == 2:
                found[name] = True
    sets = [name for name in SETS if name in found]
    if META in found and not sets:
        raise AnnotationError(path, "the whole file", f"has `{META}` but no `clips`")
    if not found or not all(found[name] for name in sets):
        raise AnnotationError(path, "the whole file", "expected an object with one entry for each clip")
    return sets or [""], META in found


@contextmanager
def _opened(path: AnyPath) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            if file.read(len(BOM_UTF8)) != BOM_UTF8:
                file.seek(0)
            yield file
    except AnnotationError:
        raise
    except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationError(path, "the whole file", f"not JSON ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


Read = TypeVar("Read", bound=_Part)


def _validated(kind: type[Read], value: Any, path: AnyPath, where: str) -> Read:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the entry"
        raise AnnotationError(path, where, f"{field}: {first['msg']}") from error


def _clip(path: AnyPath, key: str, value: Any, names: _Meta) -> AnnotatedClip:
    where = f"entry {key!r}"
    entry = _validated(_Entry, value, path, where)
    name = key.removesuffix(".mp4")
    if not re.fullmatch(rf"{re.escape(entry.ytb_id)}_\d+(_\d+)?", name):
        raise AnnotationError(path, where, f"expected the name {entry.ytb_id}_<number>, or with two numbers")
    span, box = entry.duration, entry.bbox
    if span.end_sec <= span.start_sec:
        raise AnnotationError(
            path, where, f"duration: ends at {span.end_sec:g} s, before {span.start_sec:g} s"
        )
    corners = (box.left, box.top, box.right, box.bottom)
    outside = max(box.left, box.top) >= 1 and max(corners) <= 1 + BEYOND
    if min(corners) < -BEYOND or outside:
        raise AnnotationError(path, where, "bbox: lies outside of the frame")
    if box.right <= box.left or box.bottom <= box.top:
        raise AnnotationError(path, where, "bbox: its right and bottom are not beyond its left and top")
    in_pixels = max(corners) > 1 + BEYOND
    return AnnotatedClip(
        key=name,
        origin=entry.ytb_id,
        part=entry.ytb_id,
        span_s=(span.start_sec, span.end_sec),
        box=None if in_pixels else corners,
        box_px=corners if in_pixels else None,
        attributes=tuple(sorted(_attributes(path, where, entry.attributes, names), key=lambda a: a.name)),
    )


def _attributes(path: AnyPath, where: str, attributes: _Attributes, names: _Meta) -> Iterator[Attribute]:
    """What is annotated of a clip: all names that are marked, and the emotions."""
    for kind, marks, listed in (
        ("action", attributes.action, names.action_mapping),
        ("appearance", attributes.appearance, names.appearance_mapping),
    ):
        if marks is None:
            continue
        if not listed:
            raise AnnotationError(
                path, where, f"attributes.{kind}: meta_info has no {kind}_mapping with its names"
            )
        if len(marks) != len(listed):
            raise AnnotationError(path, where, f"attributes.{kind}: expected {len(listed)} zeros and ones")
        yield Attribute(
            name=kind, value=", ".join(name for name, mark in zip(listed, marks, strict=True) if mark)
        )
    if attributes.emotion is not None:
        labels = attributes.emotion.labels
        found = labels if isinstance(labels, str) else ", ".join(label.emotion for label in labels)
        yield Attribute(name="emotion", value=found)
