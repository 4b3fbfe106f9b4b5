"""The manifest: one row for each video that the build must account for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo

from shards.schema import Attribute, Box, Record, Span

MOST_NAMED = 5
"""Unreadable directories, or clips without a file, that a message names."""


def printable(name: str) -> str:
    r"""A file name that any record, terminal or page can hold; different names stay different.

    Bytes that are not UTF-8 become `\xNN`, characters that do not print `\uNNNN`, and a backslash
    is doubled, so that the text can be turned back.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_shown(character) for character in name)


def _shown(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character if character.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    r"""The text without a character that could end a line or a cell of a table, such as tab: they become `\t`, ….

    What is `printable` already stays as it is, so that it can be handed back.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def original(text: str) -> str:
    """The file name behind a printable one."""

    def character(match: re.Match[str]) -> str:
        kind, digits = match[1][0], match[1][1:]
        if kind == "\\":
            return kind
        return chr(int(digits, 16) + (0xDC00 if kind == "x" else 0))

    return re.sub(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", character, text)


def _path(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a path")
    return original(value) if info.mode == "json" else value


FilePath = Annotated[str, PlainValidator(_path), PlainSerializer(printable, when_used="json")]
"""A path as the operating system takes it (invalid bytes as surrogates), which JSON can carry all the same."""


class Cut(Record):
    """Where a clip was cut from, as its dataset annotates it; two clips of one person may overlap."""

    file: str
    """Name of that file."""
    unit: Literal["s", "frames"]
    """Of `start` and `end`."""
    start: float
    end: float
    box: Box | None = None
    """Of the person in that file, as fractions of its frames, or in pixels: then a side is above 2."""


class Video(Record):
    """One input video, as its source lists it."""

    video_id: str
    """Unique within the build and stable over runs: `<source name>/<uri>`; see `printable`."""
    source: str
    uri: str
    """Relative to the source's root, with `/`."""
    path: FilePath
    """Absolute path, as all nodes of the cluster see it."""
    origin: str | None = None
    license: str | None = None
    attributes: tuple[Attribute, ...] = ()
    source_person: str | None = None
    span_s: Span | None = None
    """The part of the file that is the video, in seconds from the file's start; None for all of it."""
    span_frames: tuple[int, int] | None = None
    """The same as first and last frame, both included, where the source counts frames."""
    annotated_box: Box | None = None
    """The person's box in the file's frames, as fractions of their width and height: x0, y0, x1, y1."""
    annotated_box_px: Box | None = None
    """The same in pixels, where the source does not give the size of the frame."""
    cut: Cut | None = None
    """What it was cut from, also where it is a file of its own."""
    frame_rate: float | None = None
    """Frames a second of a video that is a directory of frames; None for a file."""
    bytes: int
    modified_ns: int
    """Size and time of change of the file; of a directory of frames, their sum and the latest."""


class Ignored(Record):
    """What a source skips while it lists its videos."""

    suffixes: dict[str, int] = Field(default_factory=dict)
    """Files that do not look like videos: suffix of the name -> count."""
    hidden: int = 0
    """Files and directories whose name begins with a dot (`._a.mp4`, `.snapshot`); hidden directories are not
    searched."""
    excluded: int = 0
    """Files and directories that `source.include` or `source.exclude` leaves out."""
    unreadable: list[str] = Field(default_factory=list)
    """Subdirectories that this user may not list, relative to the root."""
    unannotated: int = 0
    """Video files of a dataset that are neither annotated clips nor what they are cut from."""
    unannotated_such_as: list[str] = Field(default_factory=list)
    """The first of these, as many as a message names."""
    hints: list[str] = Field(default_factory=list)
    """Sentences on what the source may be instead."""
    duplicates: int = 0
    """Second files of a clip or a download that has one."""
    conflicting: int = 0
    """Clips that the annotations list again with other content."""
    annotated: int = 0
    """Clips that the annotations of a dataset list."""
    missing: int = 0
    """Those of them that have no file."""
    missing_such_as: list[str] = Field(default_factory=list)
    """The first of these, as many as a message names."""

    def messages(self) -> list[str]:
        """One sentence for each kind; none when everything was listed."""
        sentences = list(self.hints)
        if self.suffixes:
            by_count = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
            which = ", ".join(f"{suffix}: {count}" for suffix, count in by_count)
            count = sum(self.suffixes.values())
            what = "1 file that is not a video" if count == 1 else f"{count} files that are not videos"
            sentences.append(f"Ignored {what} ({which}).")
        if self.hidden:
            names = (
                "1 hidden file or directory"
                if self.hidden == 1
                else f"{self.hidden} hidden files or directories"
            )
            sentences.append(f"Ignored {names} (name begins with a dot).")
        if self.excluded:
            names = "1 file or directory" if self.excluded == 1 else f"{self.excluded} files or directories"
            sentences.append(f"Ignored {names} by source.include and source.exclude.")
        if self.unannotated:
            some = ", ".join(self.unannotated_such_as)
            more = ", …" if self.unannotated > len(self.unannotated_such_as) else ""
            sentences.append(
                f"Ignored {_videos(self.unannotated)} that the annotations do not name: {some}{more}."
            )
        if self.duplicates:
            sentences.append(f"Ignored {_videos(self.duplicates)} with the name of another.")
        if self.conflicting:
            clips = "1 clip is" if self.conflicting == 1 else f"{self.conflicting} clips are"
            sentences.append(f"warning: {clips} annotated twice, differently: the first entry counts.")
        if self.missing:
            some = ", ".join(self.missing_such_as)
            more = ", …" if self.missing > len(self.missing_such_as) else ""
            sentences.append(
                f"warning: {self.missing} of {self.annotated} annotated clips have no file: {some}{more}."
            )
        if self.unreadable:
            listed = ", ".join(self.unreadable[:MOST_NAMED])
            more = ", …" if len(self.unreadable) > MOST_NAMED else ""
            one = len(self.unreadable) == 1
            which = "1 unreadable directory" if one else f"{len(self.unreadable)} unreadable directories"
            sentences.append(
                f"warning: Skipped {which}: {listed}{more}. "
                f"Grant read access, or add {'it' if one else 'them'} to source.exclude."
            )
        return sentences


def _videos(count: int) -> str:
    return "1 video file" if count == 1 else f"{count} video files"


@dataclass(frozen=True)
class Extent:
    """How much a source has.

    Attributes:
        listed: annotated clips of a dataset, files of a plain folder.
        videos: those of them that have a file.
        bytes: size of the files that hold the videos, each file once.
        seconds: annotated length of the videos; None for a plain folder, where only opening the files would tell.
        rate_assumed: videos whose length is annotated in frames, without frames a second.
    """

    listed: int
    videos: int
    bytes: int
    seconds: float | None = None
    rate_assumed: int = 0


class Listing:
    """The videos of one source, sorted by id, and what was ignored while listing them.

    Args:
        name: of the source.
        extent: how much it has.
        videos: makes the videos, sorted, or only that of a key, with which its id ends. A source may have a
            million, so they are made one after another.
        ignored: what the source skips.
        missing: makes the keys of annotated clips without a file.
    """

    def __init__(
        self,
        name: str,
        extent: Extent,
        videos: Callable[[str | None], Iterator[Video]],
        ignored: Ignored,
        missing: Callable[[], list[str]] = list,
    ) -> None:
        self.name = name
        self.extent = extent
        self.ignored = ignored
        self.missing = missing
        self._videos = videos

    def __len__(self) -> int:
        return self.extent.videos

    def __iter__(self) -> Iterator[Video]:
        return self._videos(None)

    @property
    def videos(self) -> list[Video]:
        """All videos at once."""
        return list(self)

    def find(self, video_id: str) -> Video | None:
        """The video of an id, if it is listed."""
        source, _, key = video_id.partition("/")
        return next(self._videos(key), None) if source == self.name else None


class Manifest(Record):
    """All videos of a build, sorted by id, and what was ignored while listing them, by source."""

    videos: list[Video]
    ignored: dict[str, Ignored] = Field(default_factory=dict)
    without_file: dict[str, list[str]] = Field(default_factory=dict)
    """The keys of annotated clips without a file, by source; sources that have all are left out."""

    @classmethod
    def of(cls, listings: Iterable[Listing]) -> Manifest:
        """The videos of all sources."""
        # With the slash, names sort as the ids that begin with them.
        ordered = sorted(listings, key=lambda listing: f"{listing.name}/")
        return cls.model_construct(
            videos=[video for listing in ordered for video in listing],
            ignored={listing.name: listing.ignored for listing in ordered},
            without_file={listing.name: listing.missing() for listing in ordered if listing.ignored.missing},
        )

    def messages(self) -> list[str]:
        """One sentence for each kind of what was ignored; the source is named where there are several."""
        several = len(self.ignored) > 1
        return [
            f"{name}: {message}" if several else message
            for name, ignored in self.ignored.items()
            for message in ignored.messages()
        ]


class SourceError(ValueError):
    """A source cannot be listed; the message states the remedy."""
