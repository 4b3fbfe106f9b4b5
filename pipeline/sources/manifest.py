"""The manifest: one row for each video that the build must account for."""

from __future__ import annotations

from pathlib import Path

from shards.schema import Record


class Video(Record):
    """One input video, as its source lists it."""

    video_id: str
    """Unique within the build and stable over runs: `<source name>/<uri>`."""
    source: str
    uri: str
    """Relative to the source's root, with `/`."""
    path: str
    """Absolute path, as all nodes of the cluster see it."""
    origin: str | None = None
    licence: str | None = None
    bytes: int
    modified_ns: int

    @property
    def suffix(self) -> str:
        """The file name's ending, in lower case."""
        return Path(self.uri).suffix.lower()


class Manifest(Record):
    """All videos of a build, sorted by id, and what was left aside while listing them."""

    videos: list[Video]
    ignored: dict[str, int]
    """Files that do not look like videos: file name ending -> count."""


class SourceError(ValueError):
    """A source cannot be listed; the message says what to do."""
