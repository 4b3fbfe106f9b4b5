"""The user's list of held-out videos, and the videos that its entries name.

One entry a line: a video id, a path or file name (with or without its ending), a clip's name in its dataset, the
key of a sample, or an origin such as a YouTube id. Empty lines and lines that begin with `#` are ignored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import BuildError
from pipeline.people.sentences import such_as
from pipeline.sources.manifest import printable
from pipeline.stages.finalize import Named as NamedFile
from pipeline.stages.finalize import sample_key
from shards.canonical import sha256_hex
from storage.path import AnyPath

SAMPLE_KEY = re.compile(r"(.*_[0-9a-f]{16})_[0-9]{2,}")
"""The key of a sample: all but the number of the track belongs to its video."""


class Named(NamedFile, Protocol):
    """A video with the names that the list may use."""

    @property
    def origin(self) -> str | None:
        """What the video was cut from, if known."""
        ...


@dataclass(frozen=True)
class VideoList:
    """The content of a list.

    Attributes:
        entries: in the order of the file, each once.
        sha256: of the file.
    """

    entries: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class ListedVideos:
    """The videos that a list names.

    Attributes:
        entries: entry, as `printable` spells it -> ids of its videos, accepted or not; none where the sources
            have no such video.
    """

    entries: dict[str, tuple[str, ...]]

    @property
    def video_ids(self) -> set[str]:
        """Ids of all listed videos."""
        return {video_id for videos in self.entries.values() for video_id in videos}

    @property
    def unknown(self) -> list[str]:
        """Entries that name no video of the sources."""
        return [entry for entry, videos in self.entries.items() if not videos]

    def messages(self) -> list[str]:
        """What the user should know before the build: entries that name no video."""
        unknown = self.unknown
        if not unknown:
            return []
        text = (
            f"split.test_list: the sources have no video for {len(unknown)} of {len(self.entries)} entries: "
            f"{such_as(unknown)}. They do not change the split. Names are compared exactly; paths are relative to "
            "the source's path."
        )
        return [text]


def read_video_list(path: AnyPath) -> VideoList:
    """Read a list.

    Raises:
        BuildError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BuildError(
            f"split.test_list: {path} cannot be read: {error.strerror or error}. Give a text file with one "
            "video a line"
        ) from error
    if b"\0" in data:
        raise BuildError(f"split.test_list: {path} is not a text file. Give one with one video a line")
    # File names need not be UTF-8; `printable` shows their bytes as the ids of videos do.
    lines = (line.strip(" \t\r") for line in data.decode("utf-8-sig", "surrogateescape").split("\n"))
    entries = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
    return VideoList(tuple(entries), sha256_hex(data))


def match_list(entries: Sequence[str], videos: Iterable[Named]) -> ListedVideos:
    """Find the videos that a list names.

    A video id or the key of a sample names one video. Any other entry names all videos of that origin, and the
    file or clip of that name.

    Args:
        entries: of the list.
        videos: all videos of the sources, accepted or not.

    Raises:
        BuildError: an entry is the name of several files and no origin, such as a file name in two sources.
    """
    names = {entry: _spellings(entry) for entry in entries}
    wanted = {name for spellings in names.values() for name in spellings}
    keys = {match[1] for name in wanted if (match := SAMPLE_KEY.fullmatch(name))}
    exact: dict[str, str] = {}
    by_origin: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, dict[str, str]] = defaultdict(dict)
    by_path: dict[str, dict[str, str]] = defaultdict(dict)
    for video in videos:
        if video.uri in wanted:
            by_path[video.uri][video.video_id] = f"{video.source}/{video.uri}"
        if video.video_id in wanted:
            exact[video.video_id] = video.video_id
        if keys and (key := SAMPLE_KEY.fullmatch(sample_key(video, 0))) and key[1] in keys:
            exact[key[1]] = video.video_id
        if video.origin is not None and video.origin in wanted:
            by_origin[video.origin].append(video.video_id)
        for name in _names(video):
            if name in wanted:
                by_name[name][video.video_id] = f"{video.source}/{video.uri}"

    found: dict[str, tuple[str, ...]] = {}
    for entry, spellings in names.items():
        videos_of_entry: set[str] = set()
        for name in spellings:
            match = SAMPLE_KEY.fullmatch(name)
            one = exact.get(name) or (exact.get(match[1]) if match else None)
            if one is not None:
                videos_of_entry = {one}
                break
            files = by_path.get(name) or by_name.get(name, {})
            if name not in by_origin and len(set(files.values())) > 1:
                raise BuildError(
                    f"split.test_list: {printable(entry)} is ambiguous: it names {such_as(sorted(files))}. Give "
                    "the id of the video that is meant"
                )
            videos_of_entry |= {*files, *by_origin.get(name, ())}
        found[printable(entry)] = tuple(sorted(videos_of_entry))
    return ListedVideos(found)


def _spellings(entry: str) -> tuple[str, ...]:
    """An entry as it is, such as one copied from a report, and as ids spell a file name."""
    entry = entry.removeprefix("./")
    return tuple(dict.fromkeys((entry, printable(entry))))


def _names(video: Named) -> Iterator[str]:
    """All names of a video and of its file, but for its id."""
    for path in {video.uri, video.video_id.removeprefix(f"{video.source}/")}:
        for name in (path, path.rpartition("/")[2]):
            yield name
            stem, dot, ending = name.rpartition(".")
            if dot and "/" not in ending and stem:
                yield stem
