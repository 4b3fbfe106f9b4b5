"""A clip as its dataset annotates it."""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import Attribute, Box, Span
from storage.path import AnyPath

YOUTUBE_ID = r"[A-Za-z0-9_-]{11}"
BEYOND = 0.05
"""How far an annotated box may reach beyond the frame, as a fraction of its side."""


@dataclass(frozen=True, slots=True)
class AnnotatedClip:
    """One clip of a dataset.

    Attributes:
        key: the dataset's name of the clip, which official tools give to its file.
        origin: YouTube id of the video that it is cut from.
        part: name of the file that it is cut from, without a suffix: the download, or a part of one.
        span_s: start and end in that file, in seconds; None where `frames` has them.
        frames: first and last frame in that file, both included; None where `span_s` has them.
        box: of the person in that file's frames, as fractions of their width and height: x0, y0, x1, y1.
        box_px: the same in pixels, where the annotation does not give the size of the frame.
        frame_rate: frames a second of the video that it is cut from, where the annotation says so.
        person: the dataset's label of the person: clips of one origin with one label show one person.
        attributes: other annotations, sorted by name.
    """

    key: str
    origin: str
    part: str
    span_s: Span | None = None
    frames: tuple[int, int] | None = None
    box: Box | None = None
    box_px: Box | None = None
    frame_rate: float | None = None
    person: str | None = None
    attributes: tuple[Attribute, ...] = ()

    @property
    def has_no_rate(self) -> bool:
        """Whether its length is annotated in frames only."""
        return self.frames is not None and self.frame_rate is None

    def seconds(self, frame_rate: float) -> float:
        """Its annotated length; `frame_rate` is assumed where the annotation has frames and no rate.

        Raises:
            ValueError: it has neither seconds nor frames.
        """
        if self.span_s is not None:
            return self.span_s[1] - self.span_s[0]
        if self.frames is None:
            raise ValueError(f"{self.key} has neither seconds nor frames")
        first, last = self.frames
        return (last - first + 1) / (self.frame_rate or frame_rate)


class AnnotationError(ValueError):
    """An annotation file deviates from its format.

    Args:
        path: the file.
        where: a line or an entry of it.
        what: the deviation, and what was expected.
    """

    def __init__(self, path: AnyPath, where: str, what: str) -> None:
        super().__init__(f"{path}, {where}: {what}")
