"""The clips of a dataset: files of their own, as its official tools cut them, or parts of the downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.config import Source
from pipeline.sources.annotations.celebv import read_celebv
from pipeline.sources.annotations.clip import AnnotatedClip, AnnotationError
from pipeline.sources.annotations.talkinghead import read_tubes
from pipeline.sources.annotations.vfhq import is_clip_name, parse_clip_name, read_clip
from pipeline.sources.folder import FoundFile, find_files, list_folder, video_of
from pipeline.sources.manifest import Listing, Manifest, SourceError, Video, printable
from storage.ahead import map_ahead
from storage.errors import StorageError
from storage.path import AnyPath, path_of

READERS = 16
"""Annotation files that are read at a time: VFHQ has one for each clip."""


def _says_nothing(_: str) -> None:
    return None


@dataclass(frozen=True)
class Dataset:
    """How a dataset is laid out.

    Attributes:
        annotations: glob of its annotation files.
        folder: the directory that they come in; empty where they lie beside the videos.
        read: reads one of them.
        named: the clip that the name of a file stands for by itself.
        is_frames: whether a directory of this name is a clip as frames.
        needs_annotations: whether names do not say enough.
    """

    annotations: str
    read: Callable[[AnyPath], Iterable[AnnotatedClip]]
    folder: str = ""
    named: Callable[[str], AnnotatedClip | None] = _says_nothing
    is_frames: Callable[[str], bool] = lambda _: False
    needs_annotations: bool = True


DATASETS = {
    "celebv-hq": Dataset("celebvhq_info.json", read_celebv),
    "celebv-text": Dataset("celebvtext_info.json", read_celebv),
    "talkinghead-1kh": Dataset("*_video_tubes.txt", read_tubes),
    "vfhq": Dataset(
        "Clip+*.txt",
        read_clip,
        folder="meta_info",
        named=parse_clip_name,
        is_frames=is_clip_name,
        needs_annotations=False,
    ),
}
"""By `source.kind`."""


def list_sources(sources: Iterable[Source]) -> Manifest:
    """List the videos of all sources, sorted by id.

    Raises:
        SourceError: a source cannot be listed, or its annotations cannot be read.
    """
    wanted = list(sources)
    listings = []
    for source in wanted:
        try:
            listings.append(list_source(source))
        except SourceError as error:
            if len(wanted) == 1:
                raise
            text = str(error).removeprefix("source.")
            raise SourceError(f"sources.{source.name}.{text}") from error
    return Manifest.of(listings)


def list_source(source: Source) -> Listing:
    """List the videos of a source.

    Raises:
        SourceError: it cannot be listed, or its annotations cannot be read.
    """
    return list_folder(source) if source.kind == "folder" else _list_dataset(source, DATASETS[source.kind])


def _list_dataset(source: Source, dataset: Dataset) -> Listing:
    clips, conflicting = _annotated(source, dataset)
    found = find_files(source, dataset.is_frames)
    for file in found.files:
        clip = dataset.named(_name(file.uri))
        if clip is not None:
            clips.setdefault(clip.key, clip)
    parts = {clip.part for clip in clips.values()}
    whole: dict[str, FoundFile] = {}
    cut_from: dict[str, FoundFile] = {}
    unannotated = duplicates = 0
    for file in found.files:
        name = _name(file.uri)
        known = whole if name in clips else cut_from if name in parts else None
        if known is None:
            unannotated += 1
            continue
        duplicates += name in known
        if name not in known or (file.bytes and not known[name].bytes):
            known[name] = file
    there = sorted(key for key, clip in clips.items() if key in whole or clip.part in cut_from)
    if not there:
        raise SourceError(
            f"source.path: no file below {printable(str(source.path))} has the name of one of the {len(clips)} "
            "annotated clips, or of a video that they are cut from"
        )

    def video(key: str) -> Video:
        clip = clips[key]
        return _video(source, clip, whole.get(key), cut_from.get(clip.part))

    ignored = found.ignored.model_copy(
        update={
            "unannotated": unannotated,
            "duplicates": duplicates,
            "conflicting": conflicting,
            "annotated": len(clips),
            "missing": sorted(clips.keys() - set(there)),
        }
    )
    return Listing(source.name, there, video, ignored)


def _video(source: Source, clip: AnnotatedClip, own: FoundFile | None, download: FoundFile | None) -> Video:
    """A clip as its own file, or else as a part of the file that it is cut from."""
    said: dict[str, Any] = {
        "origin": clip.origin,
        "attributes": clip.attributes,
        "source_person": clip.person,
    }
    if own is None:
        said |= {"span_s": clip.span_s, "span_frames": clip.frames}
        said |= {"annotated_box": clip.box, "annotated_box_px": clip.box_px}
    elif own.is_folder:
        said["frame_rate"] = clip.frame_rate or source.frame_rate
    file = own or download
    assert file is not None  # noqa: S101 - only clips with a file are listed
    return video_of(source, file, clip.key).model_copy(update=said)


def _name(uri: str) -> str:
    """The clip's name in that of a file or directory; CelebV-Text's tool doubles the suffix."""
    name = uri.rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return stem.removesuffix(".mp4") if dot else name


def _annotated(source: Source, dataset: Dataset) -> tuple[dict[str, AnnotatedClip], int]:
    """All annotated clips by key, and how many are listed again with other content: the first entry counts."""
    clips: dict[str, AnnotatedClip] = {}
    conflicting = set()
    try:
        with ThreadPoolExecutor(READERS) as pool:
            files = _annotation_files(source, dataset)
            for found in map_ahead(lambda path: list(dataset.read(path)), files, pool, READERS):
                for clip in found:
                    if clips.setdefault(clip.key, clip) != clip:
                        conflicting.add(clip.key)
    except AnnotationError as error:
        raise SourceError(f"source.annotations: {error}") from error
    except StorageError as error:
        raise SourceError(f"source.annotations: {error}") from error
    except OSError as error:
        raise SourceError(
            f"source.annotations: cannot read {printable(str(error.filename))}: {error.strerror}"
        ) from error
    return clips, len(conflicting)


def _annotation_files(source: Source, dataset: Dataset) -> list[AnyPath]:
    given = source.annotations
    if given is not None and not given.is_dir():
        return [given]
    folders = [given] if given is not None else list(_official_folders(source, dataset))
    for folder in folders:
        if found := sorted(map(str, folder.glob(dataset.annotations))):
            return [path_of(path) for path in found]
    if given is None and not dataset.needs_annotations:
        return []
    where = " and ".join(printable(str(folder)) for folder in folders)
    raise SourceError(
        f"source.annotations: {where} has no {dataset.annotations}. Give the annotation file of {source.kind}, or "
        "the directory that holds it"
    )


def _official_folders(source: Source, dataset: Dataset) -> Iterator[AnyPath]:
    for folder in (source.path, source.path.parent):
        yield folder / dataset.folder
