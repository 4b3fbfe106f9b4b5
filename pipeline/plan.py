"""What a build has to do, worked out before Ray starts: inputs, what is finished, what is in the way."""

from __future__ import annotations

import json
from dataclasses import dataclass

from faces.registry import ResolvedModel
from pipeline.config import Config
from pipeline.config_loading import differences
from pipeline.errors import BuildError
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Manifest, SourceError, Video
from pipeline.staging import FOLDER, Staging
from shards.atomic import write_bytes
from shards.canonical import indented_json
from shards.layout import MANIFEST
from shards.schema import Status

SETTINGS = "settings.json"
"""Beside the staging areas: the configuration of the build that owns the output folder."""
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

    @property
    def finished(self) -> int:
        """How many videos an earlier run has finished."""
        return len(self.manifest.videos) - len(self.todo)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Where the time of each video went, by step; empty for those that could not be analysed."""
        return {video.video_id: self.staging.seconds(video) for video in self.manifest.videos}


def plan_build(
    config: Config, models: dict[str, ResolvedModel], *, replace: bool, retry_failed: bool
) -> BuildPlan:
    """Work out what there is to do.

    Raises:
        BuildError: the source cannot be listed, or the output folder belongs to another build.
    """
    try:
        manifest = list_folder(config.source)
    except SourceError as error:
        raise BuildError(str(error)) from error
    digests = {name: model.sha256 for name, model in models.items()}
    _claim(config, replace=replace)
    staging = Staging.of(config.output, config.curation_digest(digests))
    staging.tidy()
    finished = {video.video_id for video in staging.finished(manifest.videos)}
    if retry_failed:
        again = [
            video
            for video in manifest.videos
            if video.video_id in finished and staging.outcome(video).status is Status.FAILED
        ]
        staging.forget(again)
        finished -= {video.video_id for video in again}
    todo = [video for video in manifest.videos if video.video_id not in finished]
    return BuildPlan(manifest, staging, sorted(todo, key=lambda video: (-video.bytes, video.video_id)))


def _claim(config: Config, *, replace: bool) -> None:
    """Make the output folder this build's, or refuse when it is another's."""
    settings = config.output / FOLDER / SETTINGS
    defining = config.defining()
    if settings.exists():
        owner = json.loads(settings.read_text(encoding="utf-8"))
        changed = differences(owner, defining)
        if changed and not replace:
            raise BuildError(
                f"{config.output} holds a build of another configuration:\n  "
                + "\n  ".join(changed)
                + "\nGive another output, or --replace to build over it (videos whose curation did not change "
                "are not curated again)."
            )
    elif config.output.exists() and any(config.output.iterdir()) and not replace:
        what = "a data set" if (config.output / MANIFEST).exists() else "files"
        raise BuildError(
            f"{config.output} holds {what} that no build of ours has left there; give another output, or "
            "--replace to build over it."
        )
    write_bytes(settings, indented_json(defining))


def unstaged(plan: BuildPlan) -> list[Video]:
    """Videos of the plan that are not finished."""
    finished = {video.video_id for video in plan.staging.finished(plan.todo)}
    return [video for video in plan.todo if video.video_id not in finished]
