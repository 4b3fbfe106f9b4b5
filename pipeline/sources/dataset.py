"""The clips of a dataset: files of their own, as its official tools cut them, or parts of the downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Source
from pipeline.sources.annotations.celebv import read_celebv
from pipeline.sources.annotations.clip import AnnotatedClip, AnnotationError
from pipeline.sources.annotations.talkinghead import read_tubes
from pipeline.sources.folder import list_folder
from pipeline.sources.manifest import Manifest, SourceError, Video, printable


@dataclass(frozen=True)
class Dataset:
    """How a dataset is laid out.

    Attributes:
        annotations: glob of its annotation files.
        read: reads one of them.
    """

    annotations: str
    read: Callable[[Path], Iterator[AnnotatedClip]]


DATASETS = {
    "celebv-hq": Dataset("celebvhq_info.json", read_celebv),
    "celebv-text": Dataset("celebvtext_info.json", read_celebv),
    "talkinghead-1kh": Dataset("*_video_tubes.txt", read_tubes),
}
"""By `source.kind`."""


def list_source(source: Source) -> Manifest:
    """List the videos of a source, sorted by id.

    Raises:
        SourceError: it cannot be listed, or its annotations cannot be read.
    """
    return list_folder(source) if source.kind == "folder" else _list_dataset(source, DATASETS[source.kind])


def _list_dataset(source: Source, dataset: Dataset) -> Manifest:
    clips = _clips(source, dataset)
    files = list_folder(source)
    parts = {clip.part for clip in clips.values()}
    whole: dict[str, Video] = {}
    cut_from: dict[str, Video] = {}
    unannotated = duplicates = 0
    for file in sorted(files.videos, key=lambda video: video.uri):
        name = _name(file.uri)
        known = whole if name in clips else cut_from if name in parts else None
        if known is None:
            unannotated += 1
            continue
        duplicates += name in known
        if name not in known or (file.bytes and not known[name].bytes):
            known[name] = file
    videos = {
        key: video
        for key, clip in clips.items()
        if (video := _video(source, clip, whole.get(key), cut_from.get(clip.part))) is not None
    }
    if not videos:
        raise SourceError(
            f"source.path: no file below {printable(str(source.path))} has the name of one of the {len(clips)} "
            "annotated clips, or of a video that they are cut from"
        )
    ignored = files.ignored.model_copy(
        update={
            "unannotated": unannotated,
            "duplicates": duplicates,
            "annotated": len(clips),
            "missing": sorted(clips.keys() - videos.keys()),
        }
    )
    return Manifest(videos=sorted(videos.values(), key=lambda video: video.video_id), ignored=ignored)


def _video(source: Source, clip: AnnotatedClip, own: Video | None, download: Video | None) -> Video | None:
    """A clip as its own file, or else as a part of the file that it is cut from; None when there is neither."""
    said: dict[str, Any] = {
        "video_id": f"{source.name}/{clip.key}",
        "origin": clip.origin,
        "attributes": clip.attributes,
        "source_person": clip.person,
    }
    if own is not None:
        return own.model_copy(update=said)
    if download is None:
        return None
    said |= {"span_s": clip.span_s, "span_frames": clip.frames}
    said |= {"annotated_box": clip.box, "annotated_box_px": clip.box_px}
    return download.model_copy(update=said)


def _name(uri: str) -> str:
    """The clip's name in that of a file; CelebV-Text's tool doubles the suffix."""
    name = uri.rpartition("/")[2]
    return name.rpartition(".")[0].removesuffix(".mp4")


def _clips(source: Source, dataset: Dataset) -> dict[str, AnnotatedClip]:
    """All annotated clips by key; a clip that is listed twice counts once."""
    try:
        return {clip.key: clip for path in _annotation_files(source, dataset) for clip in dataset.read(path)}
    except AnnotationError as error:
        raise SourceError(f"source.annotations: {error}") from error
    except OSError as error:
        raise SourceError(
            f"source.annotations: cannot read {printable(str(error.filename))}: {error.strerror}"
        ) from error


def _annotation_files(source: Source, dataset: Dataset) -> Iterable[Path]:
    if source.annotations is not None:
        if source.annotations.is_dir():
            raise SourceError(
                f"source.annotations: {printable(str(source.annotations))} is a directory. Give the file, such as "
                f"{dataset.annotations}"
            )
        return [source.annotations]
    for folder in (source.path, source.path.parent):
        if found := sorted(folder.glob(dataset.annotations)):
            return found
    raise SourceError(
        f"source.annotations: {printable(str(source.path))} and the folder above have no {dataset.annotations}. "
        f"Give the annotation file of {source.kind}"
    )
