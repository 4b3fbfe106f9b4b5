"""Which finished videos a build uses: its own, and, at the user's choice, those of other library versions.

    <output>/.staging/<curation digest>/curation.json   {"curation": {...}, "keeps": [...], "redoes": [...]}

The digest covers the versions of libraries and the device, because another one changes last bits. So after an
upgrade the finished videos are under another digest. They are neither dropped nor mixed in silently: the build
stops, names the changes and the number of videos, and the user chooses. The file above records the choice,
by the names of the sibling folders, so the build asks only once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.errors import BuildError
from pipeline.sources.manifest import Video
from pipeline.staging import FOLDER, Staging
from settings.section import differences
from shards.atomic import write_bytes
from shards.canonical import indented_json
from storage.path import AnyPath, modified_ns

CURATION_JSON = "curation.json"
MACHINE = ("device", "libraries")
"""Parts of a curation that the user does not set: results that differ only in them may be kept."""

Choice = Literal["keep", "redo"]
"""What to do with videos that other library versions or another device have finished."""


class StagedCuration(BaseModel):
    """What the finished videos of one staging folder were made with.

    Attributes:
        curation: `Config.curation`.
        keeps: names of the folders beside it whose finished videos a build with this curation uses as they are.
        redoes: names of those whose videos it curates again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curation: dict[str, JsonValue]
    keeps: list[str] = []
    redoes: list[str] = []

    @property
    def libraries(self) -> dict[str, str]:
        """Version of each library."""
        found = self.curation.get("libraries")
        return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


@dataclass(frozen=True)
class _Other:
    """A folder of videos that were finished with the same settings on other libraries or another device.

    `found` is None when these versions cannot be read; then the videos cannot be kept.
    """

    folder: AnyPath
    found: StagedCuration | None
    videos: list[Video]


def take_up(
    staging: Staging,
    curation: dict[str, Any],
    videos: list[Video],
    choice: Choice | None,
    *,
    dry_run: bool = False,
) -> Staging:
    """Decide which finished videos the build uses, and record it.

    Args:
        staging: the folder of this curation.
        curation: `Config.curation` of the build.
        videos: all of the build.
        choice: what to do with the finished videos of other library versions or another device; None stops the
            build, unless an earlier run of this curation recorded a choice.
        dry_run: record nothing.

    Returns:
        The staging area, with the folders whose results are kept.

    Raises:
        BuildError: a choice is needed and none was given.
        OSError: the folder cannot be read or written.
    """
    ours = read_curation(staging.folder) or StagedCuration(curation=curation)
    if choice == "redo":
        ours = ours.model_copy(update={"keeps": []})
    staging = replace(staging, kept=_existing(staging, ours.keeps))
    finished = {video.video_id for video in staging.finished(videos)}
    known = () if choice else (*ours.keeps, *ours.redoes)
    others = [
        other
        for other in _others(staging, curation, videos)
        if other.folder.name not in known and _affected(other, finished)
    ]
    if others and choice is None:
        raise BuildError(_question(others, curation, finished, len(videos)))
    keeps = [other.folder.name for other in others if choice == "keep" and other.found]
    redoes = [other.folder.name for other in others if other.folder.name not in keeps]
    if choice is not None:
        ours = ours.model_copy(update={"keeps": [*ours.keeps, *keeps], "redoes": redoes})
    if not dry_run:
        write_bytes(staging.folder / CURATION_JSON, indented_json(ours.model_dump()))
    return replace(staging, kept=_existing(staging, ours.keeps))


def read_curation(folder: AnyPath) -> StagedCuration | None:
    """The curation of a staging folder's videos; None where it is not recorded, or not readable."""
    try:
        return StagedCuration.model_validate(json.loads((folder / CURATION_JSON).read_bytes()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None


def libraries_used(staging: Staging, videos: list[Video], current: dict[str, str]) -> dict[str, str]:
    """Every library with the version that shaped the dataset, or versions: `16.0.1, 16.1.0`.

    Args:
        staging: as `take_up` gave it.
        videos: all of the dataset, finished.
        current: the present versions, which link people and write the shards.
    """
    used = [current]
    for folder in staging.folders_of(videos):
        found = read_curation(folder)
        used.append(found.libraries if found else {})
    names = sorted(set[str]().union(*used))
    return {name: ", ".join(sorted({each[name] for each in used if name in each})) for name in names}


def count_lost(staging: Staging, videos: list[Video]) -> tuple[int, int]:
    """How many of `videos` are finished under any curation, and how many of those `staging` does not have."""
    folders = _neighbours(staging)
    everywhere = {v.video_id for folder in folders for v in Staging(folder).finished(videos)}
    return len(everywhere), len(everywhere - {v.video_id for v in staging.finished(videos)})


def _neighbours(staging: Staging) -> list[AnyPath]:
    """All staging folders of the output, the latest first."""
    root = staging.folder.parent
    names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return [root / name for name in sorted(names, key=lambda name: (-_age(root / name), name))]


def _age(folder: AnyPath) -> int:
    return modified_ns(folder / CURATION_JSON) or 0


def _existing(staging: Staging, names: list[str]) -> tuple[AnyPath, ...]:
    folders = [staging.folder.parent / PurePosixPath(name).name for name in names]
    return tuple(folder for folder in folders if folder.is_dir())


def _others(staging: Staging, curation: dict[str, Any], videos: list[Video]) -> list[_Other]:
    found: list[_Other] = []
    for folder in _neighbours(staging):
        other = read_curation(folder)
        if folder == staging.folder:
            continue
        if other is None or _settings(other.curation) == _settings(curation):
            found.append(_Other(folder, other, Staging(folder).finished(videos)))
    return found


def _settings(curation: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in curation.items() if name not in MACHINE}


def _affected(other: _Other, finished: set[str]) -> int:
    return sum(video.video_id not in finished for video in other.videos)


def _question(others: list[_Other], curation: dict[str, Any], finished: set[str], total: int) -> str:
    lines = [
        line
        for other in others
        for line in (
            f"{_affected(other, finished)} of {total} videos are finished, but with:",
            *(f"  {line.removeprefix('libraries.')}" for line in _changes(other, curation)),
        )
    ]
    choices = [f"  --redo         curate these videos again; nothing in {FOLDER} is deleted"]
    if any(other.found for other in others):
        choices.insert(
            0, "  --keep-staged  use these videos as they are; dataset.json lists all versions used"
        )
    return "\n".join(
        (
            *lines,
            "Another version or device can change the last digits of a result. Choose, once:",
            *choices,
        )
    )


def _changes(other: _Other, curation: dict[str, Any]) -> list[str]:
    if other.found is None:
        return [
            f"unknown versions ({other.folder / CURATION_JSON} is missing or damaged), so only --redo is possible"
        ]
    return differences(other.found.curation, curation)
