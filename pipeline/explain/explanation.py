"""Collects everything that an output directory records of one video."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import BuildError
from pipeline.explain.build_folder import BuildFolder, same_curation
from pipeline.explain.lookup import Known, UnknownVideo, find
from pipeline.explain.settings import deciding_settings
from pipeline.records import Timeline, TimelineFace
from pipeline.sources.dataset import list_sources
from pipeline.sources.manifest import Manifest, SourceError
from pipeline.staging import FOLDER, StagedVideo, read_staged_video
from shards.layout import DATASET_JSON
from shards.metadata import DatasetError
from shards.schema import Pose, VideoOutcome
from storage.path import AnyPath, ObjectPath


@dataclass(frozen=True)
class Explanation:
    """The facts about a video.

    Attributes:
        outcome: the dataset's row when there is one, else the staged one.
        timeline: its analysed frames and faces.
        whole: whether the timeline contains every analysed frame; otherwise it contains the chosen images at most.
        images: JPEGs of the chosen images, by track, in time order.
        metric: of the quality, with its direction: `piqe, lower is better`; empty when no image was chosen.
        settings: configuration keys that the video's reasons depend on, and their values.
        file: the video's file, if it exists and has not changed.
        decoder: the decoder of the build.
        notes: what a reader must know about the sources of these facts.
    """

    outcome: VideoOutcome
    timeline: Timeline
    whole: bool
    images: dict[int, list[bytes]]
    metric: str
    settings: dict[str, Any]
    file: Path | None
    decoder: str | None
    notes: list[str] = field(default_factory=list)


def explain(root: AnyPath, wanted: str, source: AnyPath | None = None) -> Explanation:
    """Collect the facts about a video.

    Args:
        root: output directory of a build, finished or not.
        wanted: the video, as `pipeline.explain.lookup.find` takes it.
        source: directory that contains the videos now; that of the build when None.

    Raises:
        BuildError: `root` is not the output of a build, not exactly one video matches, or it is not curated yet.
        DatasetError: the dataset's tables cannot be read.
    """
    folder = BuildFolder(root, source)
    if folder.dataset is None and not folder.areas:
        raise BuildError(
            f"{root} is not the output of a build: it has neither {DATASET_JSON} nor {FOLDER}. Check the path"
        )
    packed = folder.packed()
    video = _find(folder, packed, wanted)
    outcome = packed.get(video.video_id)
    staged = folder.staged_of(video, outcome)
    if staged is not None:
        try:
            content = read_staged_video(staged.path)
        except (OSError, ValueError, KeyError, pa.ArrowException):
            folder.unreadable.append(staged.path)
        else:
            return _noted(folder, _from_staging(folder, content, outcome))
    if outcome is None:
        raise BuildError(_not_curated(folder, video))
    return _noted(folder, _from_dataset(folder, outcome))


def _find(folder: BuildFolder, packed: dict[str, VideoOutcome], wanted: str) -> Known:
    """The video, in the cheapest list that has it."""
    known = {video.video_id: Known(video.video_id, video.source, video.uri) for video in packed.values()}
    try:
        return find(wanted, known.values())
    except UnknownVideo:
        # The dataset may be older than its source, or not exist yet.
        manifest = _listed(folder)
        _check_has_file(wanted, manifest)
        known |= {
            video.video_id: Known(video.video_id, video.source, video.uri) for video in manifest.videos
        } or _staged(folder)
        return find(wanted, known.values())


def _listed(folder: BuildFolder) -> Manifest:
    """The source's content; nothing when it does not exist, or its configuration is of another version."""
    try:
        return list_sources(folder.sources.values())
    except SourceError:
        return Manifest(videos=[])


def _check_has_file(wanted: str, manifest: Manifest) -> None:
    for source, keys in manifest.without_file.items():
        if wanted.removeprefix(f"{source}/") in keys:
            raise BuildError(
                f"{wanted!r} is annotated in {source}, but no file has its name, so there is nothing to curate. "
                "Get the file and run the build again"
            )


def _staged(folder: BuildFolder) -> dict[str, Known]:
    return {
        staged.outcome.video_id: Known(staged.outcome.video_id, staged.outcome.source, staged.outcome.uri)
        for staged in folder.staged()
    }


def _from_staging(folder: BuildFolder, content: StagedVideo, packed: VideoOutcome | None) -> Explanation:
    notes = []
    outcome = packed or content.outcome
    if packed is None and folder.dataset is not None:
        notes.append(
            "The dataset does not contain this video yet: it was curated after the dataset was packed."
        )
    elif packed is None:
        notes.append("The build is not finished: linking may still reject this video as a duplicate.")
    elif not same_curation(content.outcome, packed):
        notes.append(
            "The video was curated again after the dataset was packed: the outcome is the later one."
        )
        outcome = content.outcome
    if content.timeline is None:
        notes.append("An older version curated this video and kept no timeline.")
    return Explanation(
        outcome=outcome,
        timeline=content.timeline or Timeline(),
        whole=content.timeline is not None,
        images={
            identity.track: jpegs for identity, jpegs in zip(content.identities, content.jpegs, strict=True)
        },
        metric=next(
            (
                _metric(image.quality.metric, image.quality.higher_is_better)
                for identity in content.identities
                for image in identity.images
            ),
            "",
        ),
        settings={},
        file=None,
        decoder=None,
        notes=notes,
    )


def _from_dataset(folder: BuildFolder, outcome: VideoOutcome) -> Explanation:
    assert folder.dataset is not None  # noqa: S101 - the outcome comes out of it
    lost = "was deleted" if not (folder.root / FOLDER).is_dir() else "does not contain this video"
    notes = [f"The staging area ({FOLDER}) {lost}: only the content of the dataset's tables is shown."]
    table = folder.dataset.images()
    rows = table.filter(pc.equal(table["video_id"], outcome.video_id)).to_pylist()
    images: dict[int, list[bytes]] = {}
    for key, track in sorted({(row["key"], row["track"]) for row in rows}):
        try:
            images[track] = list(folder.dataset.sample(key).images)
        except (DatasetError, OSError) as error:
            notes.append(f"The images of {key} cannot be read: {error}")
    faces = [
        TimelineFace(
            frame=row["frame"],
            time_s=row["time_s"],
            track=row["track"],
            box_px=(0.0, 0.0, 0.0, 0.0),
            face_px=row["face_px"],
            crop_px=(0.0, 0.0, row["crop_side_px"]),
            pose=Pose(yaw=row["yaw"], pitch=row["pitch"], roll=row["roll"]),
            sharpness=row["sharpness"],
            candidate=True,
            quality=row["quality"],
            chosen=True,
        )
        for row in sorted(rows, key=lambda row: (row["track"], row["index"]))
    ]
    metric = _metric(rows[0]["quality_metric"], rows[0]["quality_higher_is_better"]) if rows else ""
    return Explanation(outcome, Timeline(faces=faces), False, images, metric, {}, None, None, notes)


def _metric(name: str, higher_is_better: bool) -> str:
    return f"{name}, {'higher' if higher_is_better else 'lower'} is better"


def _noted(folder: BuildFolder, found: Explanation) -> Explanation:
    """With the video's file, the settings behind its reasons, and the unreadable files."""
    notes, outcome = list(found.notes), found.outcome
    if folder.unreadable:
        notes.append(
            f"{len(folder.unreadable)} staged files cannot be read and were skipped, such as "
            f"{folder.unreadable[0]}. The disk may be damaged."
        )
    path = folder.file_of(outcome.source, outcome.uri)
    if folder.is_directory(outcome.source, outcome.uri):
        notes.append("The video is a directory of frames, which are not shown here.")
    elif isinstance(folder.folder_of(outcome.source), ObjectPath):
        notes.append(
            "The video is in an object store: its frames are not shown. Pass --source DIR with a copy."
        )
    elif path is None:
        videos = folder.folder_of(outcome.source)
        where = f" in {videos}" if videos else ""
        notes.append(f"There is no regular file of this video{where}. Pass --source if it was moved.")
    elif path.stat().st_size != outcome.bytes:
        notes.append(f"{path} has changed since it was curated ({outcome.bytes:,} bytes then).")
        path = None
    decoder = folder.setting("frames.decoder")
    return replace(
        found,
        file=path,
        decoder=decoder if isinstance(decoder, str) else None,
        settings=deciding_settings(outcome, found.timeline, folder.setting),
        notes=notes,
    )


def _not_curated(folder: BuildFolder, video: Known) -> str:
    if folder.unreadable:
        return (
            f"{video.video_id}: its staged file {folder.unreadable[0]} cannot be read. Remove the file and run "
            "the build again"
        )
    if folder.dataset is not None:
        return f"{video.video_id} is in the source, but not in the dataset. Run the build again to add it"
    return (
        f"{video.video_id} is not curated yet: the build is running or was stopped. Run the build again to "
        "continue it"
    )
