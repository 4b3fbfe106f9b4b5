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
from pipeline.sources.folder import NoVideo, list_folder, video_of, walk_of
from pipeline.sources.manifest import MOST_NAMED, Cut, Listing, Manifest, SourceError, Video, printable
from pipeline.sources.rows import FoundFile, SourceRows
from storage.ahead import map_ahead
from storage.errors import StorageError
from storage.path import AnyPath, ObjectPath

READERS = 16
"""Annotation files that are read at a time where each clip has one of its own."""


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
    return Manifest.of(list_each(sources))


def list_each(sources: Iterable[Source]) -> Iterator[Listing]:
    """List the sources one after another.

    Raises:
        SourceError: a source cannot be listed, or its annotations cannot be read; it is named where there are
            several.
    """
    wanted = list(sources)
    for source in wanted:
        try:
            yield list_source(source)
        except SourceError as error:
            if len(wanted) == 1:
                raise
            text = str(error).removeprefix("source.")
            raise SourceError(f"sources.{source.name}.{text}") from error


def list_source(source: Source) -> Listing:
    """List the videos of a source.

    Raises:
        SourceError: it cannot be listed, or its annotations cannot be read.
    """
    if source.kind != "folder":
        return _list_dataset(source, DATASETS[source.kind])
    try:
        listing = list_folder(source)
    except NoVideo as error:
        raise SourceError(" ".join([str(error), *_hint(source)])) from error
    listing.ignored = listing.ignored.model_copy(update={"hints": _hint(source)})
    return listing


def _list_dataset(source: Source, dataset: Dataset) -> Listing:
    rows = SourceRows()
    _add_annotated(rows, source, dataset)
    walk = walk_of(source, dataset.is_frames, dataset.annotations)
    for file in walk.files():
        name = _name(file.uri)
        rows.add_file(file, name)
        clip = dataset.named(name)
        if clip is not None:
            rows.add_named(clip, source.frame_rate)
    extent, skipped = rows.match()
    if not extent.videos:
        raise SourceError(_nothing(source, dataset, extent.listed))
    ignored = walk.ignored().model_copy(
        update=skipped
        | {
            "annotated": extent.listed,
            "missing": extent.listed - extent.videos,
            "missing_such_as": rows.missing(MOST_NAMED),
        }
    )

    def videos(key: str | None) -> Iterator[Video]:
        return (_video(source, clip, file, is_own) for clip, file, is_own in rows.videos(key))

    return Listing(source.name, extent, videos, ignored, rows.missing)


def _nothing(source: Source, dataset: Dataset, listed: int) -> str:
    where = printable(str(source.path))
    if not listed:
        return (
            f"source.path: {where} has neither annotations ({dataset.folder}/{dataset.annotations}) nor files or "
            f"directories with the names of clips. Check source.kind={source.kind}"
        )
    return (
        f"source.path: no file below {where} has the name of one of the {listed} annotated clips, or of a video "
        "that they are cut from"
    )


def _hint(source: Source) -> list[str]:
    """A sentence where the annotations of a dataset, or its directories of frames, lie in a plain folder."""
    for kind, dataset in DATASETS.items():
        pattern = "Clip+*" if dataset.folder else dataset.annotations
        if isinstance(source.path, ObjectPath) and "*" in pattern:
            continue  # would list the whole bucket once more
        try:
            found = any(source.path.glob(pattern))
        except StorageError as error:
            raise SourceError(f"source.path: {error}") from error
        if found:
            return [f"{pattern} lies there: source.kind={kind} takes its clips."]
    return []


def _video(source: Source, clip: AnnotatedClip, file: FoundFile, is_own: bool) -> Video:
    """A clip as its own file, or else as a part of the file that it is cut from."""
    said: dict[str, Any] = {
        "origin": clip.origin,
        "attributes": clip.attributes,
        "source_person": clip.person,
        "cut": _cut(clip),
    }
    if not is_own:
        said |= {"span_s": clip.span_s, "span_frames": clip.frames}
        said |= {"annotated_box": clip.box, "annotated_box_px": clip.box_px}
    elif file.is_folder:
        said["frame_rate"] = clip.frame_rate or source.frame_rate
    return video_of(source, file, clip.key).model_copy(update=said)


def _cut(clip: AnnotatedClip) -> Cut | None:
    box = clip.box or clip.box_px
    if clip.span_s is not None:
        return Cut(file=clip.part, unit="s", start=clip.span_s[0], end=clip.span_s[1], box=box)
    if clip.frames is not None:
        return Cut(file=clip.part, unit="frames", start=clip.frames[0], end=clip.frames[1] + 1, box=box)
    return None


def _name(uri: str) -> str:
    """The clip's name in that of a file or directory; CelebV-Text's tool doubles the suffix."""
    name = uri.rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return stem.removesuffix(".mp4") if dot else name


def _add_annotated(rows: SourceRows, source: Source, dataset: Dataset) -> None:
    """All annotated clips: where one is listed again with other content, the first entry counts."""
    try:
        for clip in _annotated(source, dataset):
            rows.add_clip(clip, source.frame_rate)
    except AnnotationError as error:
        raise SourceError(f"source.annotations: {error}") from error
    except StorageError as error:
        raise SourceError(f"source.annotations: {error}") from error
    except OSError as error:
        raise SourceError(
            f"source.annotations: cannot read {printable(str(error.filename))}: {error.strerror}"
        ) from error


def _annotated(source: Source, dataset: Dataset) -> Iterator[AnnotatedClip]:
    files = _annotation_files(source, dataset)
    if not dataset.folder:  # a few large files
        for path in files:
            yield from dataset.read(path)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for clips in map_ahead(lambda path: list(dataset.read(path)), files, pool, READERS):
            yield from clips


def _annotation_files(source: Source, dataset: Dataset) -> list[AnyPath]:
    given = source.annotations
    if given is not None and not given.is_dir():
        return [given]
    folders = [given] if given is not None else list(_official_folders(source, dataset))
    for folder in folders:
        if names := sorted(path.name for path in folder.glob(dataset.annotations)):
            return [folder / name for name in names]
    if given is None and not dataset.needs_annotations:
        return []
    where = ", ".join(printable(str(folder)) for folder in folders)
    raise SourceError(
        f"source.annotations: no {dataset.annotations} in {where}. Give the annotation file of {source.kind}, or "
        "the directory that holds it"
    )


def _official_folders(source: Source, dataset: Dataset) -> Iterator[AnyPath]:
    # The official tools make two levels of directories beside the file: downloaded_celebvhq/processed.
    for folder in (source.path, source.path.parent, source.path.parent.parent):
        yield folder / dataset.folder
