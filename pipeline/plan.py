"""What a build has to do, worked out before Ray starts: inputs, what is finished, what is in the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faces.registry import Weights
from pipeline.config import CURATION_VERSION, Config
from pipeline.errors import BuildError
from pipeline.provenance import library_versions
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Manifest, SourceError, Video, printable
from pipeline.staging import FOLDER, DamagedStagedFile, Staging
from settings.section import differences
from shards.atomic import TEMPORARY, OutOfSpace, write_bytes
from shards.canonical import indented_json
from shards.layout import DATASET_JSON, is_shard_name
from shards.schema import Split, Status

SETTINGS = "settings.json"
"""Beside the staging areas: the configuration and the weights of the build that owns the output folder."""
MOST_BLOCKS = 20_000
"""Ray's scheduler slows down with many more blocks; beyond this, a block holds several videos."""


@dataclass(frozen=True)
class BuildPlan:
    """The work of one build.

    Attributes:
        manifest: every video the build accounts for.
        staging: where finished videos lie.
        todo: videos still to be curated, largest first, so that no long one is left for the end.
    """

    manifest: Manifest
    staging: Staging
    todo: list[Video]

    @property
    def blocks(self) -> int:
        """How many pieces the work is cut into."""
        return min(len(self.todo), MOST_BLOCKS)

    def interleaved(self) -> list[Video]:
        """The work in the order of its blocks, large and small videos dealt out evenly among them."""
        return [video for block in range(self.blocks) for video in self.todo[block :: self.blocks]]

    @property
    def finished(self) -> int:
        """How many videos an earlier run has finished."""
        return len(self.manifest.videos) - len(self.todo)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Where the time of each video went, by step; empty for those that could not be analysed."""
        return {video.video_id: self.staging.seconds(video) for video in self.manifest.videos}


def plan_build(config: Config, weights: Weights, *, replace: bool, retry_failed: bool) -> BuildPlan:
    """Work out what there is to do.

    Args:
        config: of the build.
        weights: the networks used.
        replace: take an output folder over that holds another build, or files of others.
        retry_failed: count videos that failed in an earlier run as unfinished.

    Raises:
        BuildError: the source cannot be listed, the output folder belongs to another build, or it cannot be
            used.
        OutOfSpace: the disk is full.
    """
    try:
        manifest = list_folder(config.source)
    except SourceError as error:
        raise BuildError(str(error)) from error
    digests = {name: model.sha256 for name, model in sorted(weights.items())}
    staging = Staging.of(config.output, config.curation_digest(digests, library_versions()))
    try:
        _claim(config, digests, replace=replace)
        staging.remove_temporary_files()
        finished = staging.finished(manifest.videos)
        if retry_failed:
            again = [video for video in finished if _failed(staging, video)]
            staging.forget(again)
            finished = staging.finished(manifest.videos)
    except OutOfSpace:
        raise
    except OSError as error:
        raise BuildError(
            f"output {config.output} cannot be used: {error.filename}: {error.strerror}; give a folder that "
            "can be written to"
        ) from error
    done = {video.video_id for video in finished}
    todo = [video for video in manifest.videos if video.video_id not in done]
    return BuildPlan(manifest, staging, sorted(todo, key=lambda video: (-video.bytes, video.video_id)))


def _failed(staging: Staging, video: Video) -> bool:
    try:
        return staging.outcome(video).status is Status.FAILED
    except DamagedStagedFile:
        return True


def _claim(config: Config, weights: dict[str, str], *, replace: bool) -> None:
    """Make the output folder this build's, or refuse when it is another's."""
    folder = config.output
    if folder.exists() and not folder.is_dir():
        raise BuildError(
            f"output {folder} cannot be used: it is a file; give a folder that can be written to"
        )
    settings = folder / FOLDER / SETTINGS
    ours = config.defining() | {"weights": weights, "curation_version": CURATION_VERSION}
    ours["source"] |= {"path": str(config.source.path)}
    if not replace:
        if settings.exists():
            _refuse_another_build(folder, settings, ours)
        elif folder.is_dir() and (names := sorted(path.name for path in folder.iterdir())):
            _refuse_files_of_others(folder, names)
    # The writer would refuse these as well, but only after all the work.
    for path in (path for split in Split for path in sorted((folder / split.value).glob("*"))):
        if not (is_shard_name(path.relative_to(folder).as_posix()) or TEMPORARY.match(path.name)):
            raise BuildError(f"{path} is no part of a dataset: move it away, or give another output")
    write_bytes(settings, indented_json(ours))


def _refuse_another_build(folder: Path, settings: Path, ours: dict[str, Any]) -> None:
    try:
        owner = json.loads(settings.read_bytes())
    except ValueError:
        owner = None
    if not isinstance(owner, dict):
        raise BuildError(
            f"{settings} is damaged, so it is not known what build {folder} holds; give another output, or "
            "--replace to build over it (videos that this configuration has finished are not curated again)."
        )
    changed = differences(owner, ours)
    if changed:
        raise BuildError(
            f"{folder} holds a build of another configuration:\n  "
            + "\n  ".join(changed)
            + "\nGive another output, or --replace to build over it (videos whose curation did not change "
            "are not curated again)."
        )


def _refuse_files_of_others(folder: Path, names: list[str]) -> None:
    if DATASET_JSON in names:
        what = f"a dataset, but not what it was built from ({FOLDER}/{SETTINGS} is missing)"
    else:
        what = f"files that no build has left there, such as {printable(names[0])}"
    raise BuildError(f"{folder} holds {what}; give another output, or --replace to build over it.")


def unstaged(plan: BuildPlan) -> list[Video]:
    """Videos of the plan that are not finished."""
    finished = {video.video_id for video in plan.staging.finished(plan.todo)}
    return [video for video in plan.todo if video.video_id not in finished]
