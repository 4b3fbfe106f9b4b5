"""The work of a build, planned before Ray starts: inputs, finished videos, obstacles."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial

from faces.registry import Weights
from pipeline.config import Config, digest
from pipeline.errors import BuildError
from pipeline.ownership import claim
from pipeline.people.listed_videos import ListedVideos, match_list
from pipeline.people.split_inputs import SplitInputs, read_split_inputs
from pipeline.provenance import library_versions
from pipeline.retry import Retry, forget_again, read_list
from pipeline.reuse import Choice, count_lost, libraries_used, take_up
from pipeline.sources.dataset import list_sources
from pipeline.sources.manifest import Manifest, SourceError, Video
from pipeline.staging import Staging
from shards.atomic import OutOfSpace
from storage.ahead import map_ahead
from storage.errors import StorageError

FILES_A_TASK, TASKS_AN_ANALYSER = 8, 16
"""A task of Ray Data costs 15 ms of processor time beside the analysis, so it takes several files; but so few that
every analyser has many tasks, and all end at about the same time."""
MOST_TASKS = 20_000
"""Ray Data keeps facts of each task, and its scheduler slows down with many more. Then a task takes more files."""


@dataclass(frozen=True)
class BuildPlan:
    """The work of one build.

    Attributes:
        manifest: every video the build accounts for.
        staging: the finished videos.
        todo: unfinished videos, largest first, so that no long one is left for the end.
        messages: what the user should know of videos that are curated again, and of the list of held-out ones.
        split: the files that the split depends on.
        listed: the videos that `split.test_list` names; None without a list.
    """

    manifest: Manifest
    staging: Staging
    todo: list[Video]
    messages: list[str] = field(default_factory=list)
    split: SplitInputs = field(default_factory=SplitInputs)
    listed: ListedVideos | None = None

    @cached_property
    def files(self) -> list[list[Video]]:
        """The work by file, in the order of `todo`: a file is read once for all videos that are parts of it."""
        by_path: dict[str, list[Video]] = {}
        for video in self.todo:
            by_path.setdefault(video.path, []).append(video)
        return list(by_path.values())

    def shares(self, analysers: int) -> list[list[list[Video]]]:
        """The files in shares, one for each task, with large and small files spread evenly among them.

        Args:
            analysers: that take the tasks.
        """
        each = max(1, min(FILES_A_TASK, len(self.files) // (TASKS_AN_ANALYSER * analysers)))
        each = max(each, -(-len(self.files) // MOST_TASKS))
        count = -(-len(self.files) // each)
        return [self.files[share::count] for share in range(count)]

    @property
    def finished(self) -> int:
        """How many videos an earlier run has finished."""
        return len(self.manifest.videos) - len(self.todo)

    def libraries(self) -> dict[str, str]:
        """Version of each library that shapes the dataset, or versions; all videos must be finished."""
        return libraries_used(self.staging, self.manifest.videos, library_versions())

    def seconds(self) -> Iterator[tuple[str, dict[str, float]]]:
        """The id of each video and its time by step, empty where it could not be analysed; read as it is taken."""
        videos, readers = self.manifest.videos, self.staging.readers
        with ThreadPoolExecutor(readers) as pool:
            seconds = map_ahead(self.staging.seconds, videos, pool, 4 * readers)
            for video, spent in zip(videos, seconds, strict=True):
                yield video.video_id, spent


def plan_build(
    config: Config,
    weights: Weights,
    *,
    replace: bool,
    retry: Retry | None = None,
    staged: Choice | None = None,
    dry_run: bool = False,
) -> BuildPlan:
    """Plan the work.

    Args:
        config: of the build.
        weights: the networks used.
        replace: take over an output directory that holds another build, or foreign files.
        retry: videos of an earlier run to count as unfinished.
        staged: keep or redo videos that other library versions or another device have finished; with None, such
            videos are an error.
        dry_run: leave the output as it is.

    Raises:
        BuildError: the source cannot be listed, the output directory belongs to another build or cannot be used,
            there are such videos and no choice was given, `retry` names what does not exist, or what `split.from`
            or `split.test_list` names cannot be used.
        OutOfSpace: the disk is full.
    """
    split = read_split_inputs(config.split)
    try:
        manifest = list_sources(config.all_sources)
    except SourceError as error:
        raise BuildError(str(error)) from error
    retry = retry or Retry()
    again = read_list(retry, manifest.videos)
    listed = None if split.list is None else match_list(split.list.entries, manifest.videos)
    digests = {name: model.sha256 for name, model in sorted(weights.items())}
    curation = config.curation(digests, library_versions())
    staging = Staging.of(config.output, digest(curation))
    videos = manifest.videos
    try:
        lost = partial(count_lost, staging, videos)
        claim(config, digests, split.digests, replace=replace, lost=lost, dry_run=dry_run)
        staging = take_up(staging, curation, videos, staged, dry_run=dry_run)
        if not dry_run:
            staging.remove_temporary_files()
        messages, dropped = (
            forget_again(retry, again, staging, videos, dry_run=dry_run) if retry else ([], [])
        )
        messages += [] if listed is None else listed.messages()
        finished = staging.finished(videos)
    except OutOfSpace:
        raise
    except StorageError as error:
        raise BuildError(f"output {config.output} cannot be used: {error}") from error
    except OSError as error:
        raise BuildError(
            f"output {config.output} cannot be used: {error.filename}: {error.strerror}. Give a directory that "
            "can be written to."
        ) from error
    done = {video.video_id for video in finished} - {video.video_id for video in dropped}
    todo = [video for video in manifest.videos if video.video_id not in done]
    todo.sort(key=lambda video: (-video.bytes, video.video_id))
    return BuildPlan(manifest, staging, todo, messages, split, listed)


def unstaged(plan: BuildPlan) -> list[Video]:
    """Videos of the plan that are not finished."""
    finished = {video.video_id for video in plan.staging.finished(plan.todo)}
    return [video for video in plan.todo if video.video_id not in finished]
