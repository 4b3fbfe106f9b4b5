"""A video's file on the machine that analyses it: itself, or a copy out of an object store."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed
from pipeline.sources.manifest import Video
from shards.digests import IMAGE_SUFFIXES
from shards.schema import Reason
from storage.errors import NoSuchFile, StorageError
from storage.path import ObjectPath, local_copy, path_of
from storage.store import PARALLEL

SPARE_BYTES = 2**28
"""What a copy leaves free in the temporary directory."""


@contextmanager
def local_file(video: Video) -> Iterator[Path]:
    """The path of a video's file or directory of frames; a copy is gone with the block.

    Raises:
        DecodeFailed: the object is gone, or another one than was listed.
        MachineFault: the object store cannot be read, or the temporary directory has no room.
    """
    path = path_of(video.path)
    if not isinstance(path, ObjectPath):
        yield path
        return
    _check_room(video)
    try:
        if video.frame_rate is None:
            with local_copy(path) as copy:
                _check_size(video, copy.stat().st_size)
                yield copy
        else:
            with tempfile.TemporaryDirectory(prefix="mfhq-") as folder:
                _check_size(video, _copy_frames(path, Path(folder)))
                yield Path(folder)
    except NoSuchFile as error:
        raise DecodeFailed(Rejection(Reason.UNREADABLE, f"{error.message}, but it was listed")) from error
    except StorageError as error:
        raise MachineFault(str(error)) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_room(video) from error
        raise


def _check_room(video: Video) -> None:
    if shutil.disk_usage(tempfile.gettempdir()).free < video.bytes + SPARE_BYTES:
        raise _no_room(video)


def _check_size(video: Video, size: int) -> None:
    if size != video.bytes:
        detail = f"it has {size:,} bytes, and had {video.bytes:,} when it was listed"
        raise DecodeFailed(Rejection(Reason.UNREADABLE, detail))


def _copy_frames(source: ObjectPath, folder: Path) -> int:
    """Copy the frames directly below a prefix; returns their bytes."""
    frames = [
        entry
        for entry in source.entries()
        if "/" not in entry.path and Path(entry.path).suffix.lower() in IMAGE_SUFFIXES
    ]

    def copy(number: int) -> None:
        name = frames[number].path
        (folder / name).write_bytes(source.bucket.large((source / name).key, frames[number].size))

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(copy, range(len(frames))))
    return sum(frame.size for frame in frames)


def _no_room(video: Video) -> MachineFault:
    folder = tempfile.gettempdir()
    return MachineFault(
        f"{folder} has no room for a copy of {video.uri} ({video.bytes:,} bytes). Free space there, or set TMPDIR "
        "on the nodes to a larger disk, then run the same command again; it continues"
    )
