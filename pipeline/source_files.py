"""A video's file on the machine that analyses it: itself, or a copy out of an object store."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import DecodeFailed
from pipeline.sources.manifest import Video
from shards.digests import is_frame_name
from shards.schema import Reason
from storage.errors import NoSuchFile, StorageError
from storage.path import ObjectPath, path_of_listed
from storage.scratch import scratch_folder
from storage.store import PARALLEL

SPARE_BYTES = 2**28
"""What a copy leaves free in the temporary directory."""


@contextmanager
def local_file(video: Video) -> Iterator[Path]:
    """The path of a video's file or directory of frames; a copy is gone with the block.

    Raises:
        DecodeFailed: the object is gone, cannot be read, or is another one than was listed.
        MachineFault: the object store cannot be read, or the temporary directory has no room.
    """
    path = path_of_listed(video.path)
    if not isinstance(path, ObjectPath):
        yield path
        return
    with ExitStack() as stack:
        try:
            copied = _copied(video, path, stack)
        except NoSuchFile as error:
            detail = f"{error.message}, but it was listed"
            raise DecodeFailed(Rejection(Reason.INACCESSIBLE, detail)) from error
        except StorageError as error:
            raise _refused(path, error) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _no_room(video) from error
            raise
        yield copied


def _copied(video: Video, path: ObjectPath, stack: ExitStack) -> Path:
    folder = scratch_folder()
    if shutil.disk_usage(folder).free < video.bytes + SPARE_BYTES:
        raise _no_room(video)
    if video.frame_rate is not None:
        copy = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        _check(video, _copy_frames(path, copy))
        return copy
    named = tempfile.NamedTemporaryFile(suffix=PurePosixPath(path.name).suffix, dir=folder)  # noqa: SIM115
    copy = Path(stack.enter_context(named).name)
    facts = path.bucket.fetch(path.key, copy)
    _check(video, facts.size)
    # Some servers tell milliseconds in a listing, and none of a single object.
    if facts.modified_ns // 10**9 != video.modified_ns // 10**9:
        raise DecodeFailed(Rejection(Reason.UNREADABLE, "it was replaced after it was listed"))
    return copy


def _check(video: Video, size: int) -> None:
    if size != video.bytes:
        detail = f"it has {size:,} bytes, and had {video.bytes:,} when it was listed"
        raise DecodeFailed(Rejection(Reason.UNREADABLE, detail))


def _copy_frames(source: ObjectPath, folder: Path) -> int:
    """Copy the frames directly below a prefix; returns their bytes."""
    frames = [entry for entry in source.entries() if "/" not in entry.path and is_frame_name(entry.path)]

    def copy(number: int) -> None:
        name = frames[number].path
        (folder / name).write_bytes(source.bucket.large((source / name).key, frames[number].size))

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(copy, range(len(frames))))
    return sum(frame.size for frame in frames)


def _refused(path: ObjectPath, error: StorageError) -> DecodeFailed | MachineFault:
    """Whether one object is refused, such as an archived one, or the whole object store."""
    if error.errno == errno.EACCES:
        try:
            path.parent.is_dir()
        except StorageError:
            return MachineFault(str(error))
        return DecodeFailed(Rejection(Reason.INACCESSIBLE, error.message))
    return MachineFault(str(error))


def _no_room(video: Video) -> MachineFault:
    folder = tempfile.gettempdir()
    return MachineFault(
        f"{folder} has no room for a copy of {video.uri} ({video.bytes:,} bytes). Free space there, or set TMPDIR "
        "on the nodes to a larger disk, then run the same command again; it continues"
    )
