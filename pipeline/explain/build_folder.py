"""Reads what an output directory records of its videos: dataset tables, staging areas, source files.

Any of the three may be missing: a build that runs or was stopped has no dataset yet, a finished one may have
lost its staging, and the videos may have been moved away. This code writes no file and takes no lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from pipeline.config import Source
from pipeline.explain.lookup import Known
from pipeline.ownership import SETTINGS
from pipeline.reuse import CURATION_JSON
from pipeline.sources.dataset import list_source
from pipeline.sources.manifest import SourceError, Video, original
from pipeline.staging import FOLDER, Staging, read_staged_outcome
from shards.layout import DATASET_JSON
from shards.reader import Dataset
from shards.schema import VideoOutcome
from storage.path import AnyPath, modified_ns, path_of


@dataclass(frozen=True)
class StagedFile:
    """A video's file in a staging area."""

    path: AnyPath
    outcome: VideoOutcome


class BuildFolder:
    """The output directory of a build.

    Args:
        root: the directory.
        source: directory that contains the videos now, of a build with one source; None for those of the build.
    """

    def __init__(self, root: AnyPath, source: AnyPath | None = None) -> None:
        self.root = root
        self._source = source
        self.unreadable: list[AnyPath] = []
        """Staged files that cannot be read."""

    @cached_property
    def dataset(self) -> Dataset | None:
        """The finished dataset, if there is one.

        Raises:
            DatasetError: there is one, but it cannot be read.
        """
        return Dataset.open(self.root) if (self.root / DATASET_JSON).is_file() else None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The build's configuration; empty when it is not known."""
        try:
            found = json.loads((self.root / FOLDER / SETTINGS).read_bytes())
        except (OSError, ValueError):
            found = self.dataset.metadata.provenance.config if self.dataset else {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def areas(self) -> list[AnyPath]:
        """The staging areas, one for each configuration of the curation, the newest first."""
        root = self.root / FOLDER
        names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        age = {name: modified_ns(root / name / CURATION_JSON) or 0 for name in names}
        return [root / name for name in sorted(names, key=lambda name: (-age[name], name))]

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The build's sources by name, as far as they are known."""
        configured = self.setting("sources")
        found = {}
        for name, settings in configured.items() if isinstance(configured, Mapping) else ():
            moved = {"path": self._source} if self._source is not None and len(configured) == 1 else {}
            with suppress(ValidationError):  # of another version
                found[name] = Source.model_validate({"name": name, **settings, **moved})
        return found

    def folder_of(self, source: str) -> AnyPath | None:
        """The directory that holds the videos of a source, if it is known."""
        return self.sources[source].path if source in self.sources else self._source

    def setting(self, key: str) -> Any:
        """The value of a configuration key such as `faces.max_yaw`; None when it is not known."""
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def file_of(self, source: str, uri: str) -> Path | None:
        """Path of a video's file, if it is on this machine and still exists."""
        path = self._path_of(source, uri)
        return path if path is not None and path.is_file() else None

    def is_directory(self, source: str, uri: str) -> bool:
        """Whether a video is a directory of frames."""
        path = self._path_of(source, uri)
        return path is not None and path.is_dir()

    def _path_of(self, source: str, uri: str) -> Path | None:
        folder = self.folder_of(source)
        return folder / original(uri) if isinstance(folder, Path) else None

    def packed(self) -> dict[str, VideoOutcome]:
        """The outcome of each video in the finished dataset, by video id; empty when there is none.

        Raises:
            DatasetError: its tables cannot be read.
        """
        return {video.video_id: video for video in self.dataset.videos()} if self.dataset else {}

    def staged(self) -> Iterator[StagedFile]:
        """All staged videos, the newest area first. Files that cannot be read are noted in `unreadable`."""
        for area in self.areas:
            for path in sorted(map(str, area.glob("??/*.parquet"))):
                yield from self._read(path_of(path))

    def staged_of(self, video: Known, packed: VideoOutcome | None) -> StagedFile | None:
        """The staged file of a video; of several, the one that the dataset was made from, else the newest.

        Args:
            video: the one to find.
            packed: its outcome in the dataset, if there is one.
        """
        found = list(self._at_once(video)) or [
            staged for staged in self.staged() if staged.outcome.video_id == video.video_id
        ]
        of_dataset = [staged for staged in found if packed and same_curation(staged.outcome, packed)]
        return next(iter([*of_dataset, *found]), None)

    def _at_once(self, video: Known) -> Iterator[StagedFile]:
        """The staged files whose names follow from the source's file, without searching."""
        for listed in self._as_listed(video):
            found = [staged for area in self.areas if (staged := Staging(area).path(listed)).is_file()]
            for staged in found:
                yield from self._read(staged)
            if found:
                return

    def _as_listed(self, video: Known) -> Iterator[Video]:
        """The video as its source lists it: first as a whole file, for which nothing has to be listed."""
        path = self.file_of(video.source, video.uri)
        if path is not None:
            facts = path.stat()
            yield Video(
                video_id=video.video_id,
                source=video.source,
                uri=video.uri,
                path=str(path),
                bytes=facts.st_size,
                modified_ns=facts.st_mtime_ns,
            )
        # A part of a file, or a directory of frames: its annotation is a part of the staged file's name.
        if video.source in self.sources and self.sources[video.source].kind != "folder":
            with suppress(SourceError):
                listed = list_source(self.sources[video.source]).find(video.video_id)
                if listed is not None:
                    yield listed

    def _read(self, path: AnyPath) -> Iterator[StagedFile]:
        try:
            yield StagedFile(path, read_staged_outcome(path))
        except (OSError, ValueError, KeyError, pa.ArrowException):
            self.unreadable.append(path)


def same_curation(first: VideoOutcome, second: VideoOutcome) -> bool:
    """Whether two outcomes of a video are from one curation; linking may have changed its status since."""

    def found(outcome: VideoOutcome) -> list[tuple[float, float, int, int]]:
        return [(track.start_s, track.end_s, track.frames, track.usable_frames) for track in outcome.tracks]

    return (first.sha256, first.frame_reasons, found(first)) == (
        second.sha256,
        second.frame_reasons,
        found(second),
    )
