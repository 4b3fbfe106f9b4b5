"""Any folder of video files, searched through with its sub-folders."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from pipeline.config import Source
from pipeline.sources.manifest import Manifest, SourceError, Video, printable

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
"""Files that must be accounted for. Others (annotations, thumbnails) are counted and ignored."""


def list_folder(source: Source) -> Manifest:
    """List the videos below `source.path`, sorted by id.

    Raises:
        SourceError: the folder is missing, unreadable, or holds no video file.
    """
    root = source.path.absolute()
    if not root.is_dir():
        raise SourceError(f"source.path {root} is no folder; give the folder that holds the videos")
    videos: list[Video] = []
    ignored: Counter[str] = Counter()
    for path in _files(root):
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            ignored[printable(suffix) or "(no ending)"] += 1
            continue
        uri = printable(path.relative_to(root).as_posix())
        facts = _facts(path)
        videos.append(
            Video(
                video_id=f"{source.name}/{uri}",
                source=source.name,
                uri=uri,
                path=str(path),
                license=source.license,
                bytes=facts.st_size,
                modified_ns=facts.st_mtime_ns,
            )
        )
    if not videos:
        endings = ", ".join(sorted(VIDEO_SUFFIXES))
        raise SourceError(f"source.path {root} holds no video file (looked for {endings} in all sub-folders)")
    return Manifest(
        videos=sorted(videos, key=lambda video: video.video_id), ignored=dict(sorted(ignored.items()))
    )


def _files(root: Path) -> list[Path]:
    """All files below a folder, through linked folders too, but not round in circles."""

    def refuse(error: OSError) -> None:
        raise _cannot_read(error) from error

    found = []
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        subfolders[:] = [name for name in subfolders if not _leads_back(here / name)]
        found += [here / name for name in names]
    return found


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in (parent.resolve() for parent in folder.parents)


def _facts(path: Path) -> os.stat_result:
    try:
        # A dangling link has no size of its own: it stays in the manifest and fails as unreadable.
        return path.stat() if path.exists() else path.lstat()
    except OSError as error:
        raise _cannot_read(error) from error


def _cannot_read(error: OSError) -> SourceError:
    return SourceError(f"cannot read {printable(str(error.filename))} below source.path: {error.strerror}")
