"""Finds the one video that a user means by its id, path in the source, file name, clip key or sample key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import BuildError
from pipeline.sources.manifest import printable
from pipeline.stages.finalize import sample_key

MOST_LISTED = 8


class UnknownVideo(BuildError):  # noqa: N818 - names the fault
    """No video, or more than one, matches the name."""


@dataclass(frozen=True)
class Known:
    """A video with the names that it can be found by."""

    video_id: str
    source: str
    uri: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.uri.rpartition("/")[2]

    @property
    def key(self) -> str:
        """The id without the source's name: of a clip of a dataset, what the dataset calls it."""
        return self.video_id.removeprefix(f"{self.source}/")

    def is_called(self, wanted: str) -> bool:
        """Whether `wanted` is its id, its uri, its key in its source, or the key of one of its samples."""
        key, separator, track = wanted.rpartition("_")
        is_key = bool(separator) and track.isdigit() and key == sample_key(self, 0).rpartition("_")[0]
        return wanted in (self.video_id, self.uri, self.key) or is_key


def find(wanted: str, videos: Iterable[Known]) -> Known:
    """The video that a user names.

    Args:
        wanted: a video id, with or without the source's name, a uri, a sample key, the end of a path, or a file
            name with or without its ending.
        videos: all videos.

    Raises:
        UnknownVideo: no video or more than one matches; the message lists candidates.
    """
    wanted, known = printable(wanted).removeprefix("./"), sorted(videos, key=lambda video: video.video_id)
    path = wanted.strip("/")
    for fits in (
        lambda video: video.is_called(wanted),
        lambda video: f"/{path}".endswith(f"/{video.uri}"),
        lambda video: f"/{video.uri}".endswith(f"/{path}"),
        lambda video: video.name.rpartition(".")[0] == wanted,
    ):
        found = [video for video in known if fits(video)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = _listed([video.video_id for video in found])
            raise UnknownVideo(f"{wanted!r} names {len(found)} videos. Give one of these ids:{listed}")
    close = _close(wanted, known)
    hint = f" Did you mean one of these?{_listed(close)}" if close else ""
    raise UnknownVideo(f"none of the {len(known)} videos is called {wanted!r}.{hint}")


def _close(wanted: str, videos: list[Known]) -> list[str]:
    """Ids of the videos with names similar to the one wanted, the most similar first."""
    name = wanted.rpartition("/")[2].lower()
    contained = [
        video.video_id
        for video in videos
        if name and (name in video.uri.lower() or name in video.key.lower())
    ]
    by_name: dict[str, list[str]] = {}
    for video in videos:
        for known in {video.name.lower(), video.key.lower()}:
            by_name.setdefault(known, []).append(video.video_id)
    likely = difflib.get_close_matches(name, by_name, MOST_LISTED, 0.6)
    return list(dict.fromkeys([*contained, *(video for name in likely for video in by_name[name])]))


def _listed(names: list[str]) -> str:
    more = f"\n  … and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return "".join(f"\n  {name}" for name in names[:MOST_LISTED]) + more
