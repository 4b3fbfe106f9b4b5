"""TalkingHead-1KH's tubes: one line for each clip, and the names of the official tool's crops.

    <id>_<chunk>, H, W, S, E, L, T, R, B                                  <set>_video_tubes.txt
    <id>_<chunk>_S<S>_E<E>_L<L>_T<T>_R<R>_B<B>.mp4                        cropped_clips/

A download is cut at key frames into chunks of a minute, numbered with four digits. S and E are the first and the
last frame in that chunk, both included; L, T, R and B the box in pixels of a frame of W x H.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.sources.annotations.clip import YOUTUBE_ID, AnnotatedClip, AnnotationError
from storage.path import AnyPath

_CHUNK = re.compile(rf"(?P<origin>{YOUTUBE_ID})_(?P<chunk>\d{{4}})")
_NUMBER = re.compile(r"[0-9]{1,7}")
MOST_SHOWN = 120
"""Characters of a line that a message shows."""
FORMAT = "<id>_<chunk>, H, W, S, E, L, T, R, B"


def read_tubes(path: AnyPath) -> Iterator[AnnotatedClip]:
    """The clips of a list of tubes, in its order.

    Raises:
        AnnotationError: a line is not in the format.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _tube(path, number, line)


def _tube(path: AnyPath, number: int, line: str) -> AnnotatedClip:
    where = f"line {number}"
    part, *fields = (field.strip() for field in line.split(","))
    chunk = _CHUNK.fullmatch(part)
    if chunk is None or len(fields) != 8 or not all(_NUMBER.fullmatch(field) for field in fields):
        raise AnnotationError(path, where, f"expected {FORMAT}, found {line.strip()[:MOST_SHOWN]!r}")
    height, width, first, last, left, top, right, bottom = map(int, fields)
    if last < first or right <= left or bottom <= top or right > width or bottom > height:
        raise AnnotationError(
            path, where, f"frames {first} to {last} or the box do not fit a frame of {width} x {height}"
        )
    return AnnotatedClip(
        key=f"{part}_S{first}_E{last}_L{left}_T{top}_R{right}_B{bottom}",
        origin=chunk["origin"],
        part=part,
        frames=(first, last),
        box=(left / width, top / height, right / width, bottom / height),
    )
