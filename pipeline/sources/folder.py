"""Any folder of video files, searched through with its sub-folders."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from pipeline.config import Source
from pipeline.sources.manifest import Manifest, SourceError, Video

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
"""Files that must be accounted for. Others (annotations, thumbnails) are counted and left aside."""


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
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            ignored[path.suffix.lower() or "(no ending)"] += 1
            continue
        uri = path.relative_to(root).as_posix()
        # A dangling link has no size of its own: it stays in the manifest and fails as unreadable.
        facts = path.stat() if path.exists() else path.lstat()
        videos.append(
            Video(
                video_id=f"{source.name}/{_printable(uri)}",
                source=source.name,
                uri=_printable(uri),
                path=_printable(str(path)),
                licence=source.licence,
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
    def refuse(error: OSError) -> None:
        raise SourceError(f"cannot list {error.filename}: {error.strerror}") from error

    found = []
    for folder, _, names in os.walk(root, onerror=refuse):
        found += [Path(folder, name) for name in names]
    return found


def _printable(path: str) -> str:
    """File names that are not UTF-8 keep their odd bytes as `\\xNN`, so that every record can hold them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
