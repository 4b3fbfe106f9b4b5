"""A video that comes as a directory of frames, one image file each.

The sandbox decodes one open file, so the frames that are analysed become one: their bytes, as they are, as the
packets of a QuickTime file in the system's temporary directory. Only the sandbox looks into an image.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox.attempts import DecodeFailed
from pipeline.sandbox.client import SandboxedDecoder
from pipeline.sandbox.decoding import LOST_SHARE, CorruptFrame, Frame, Probe
from pipeline.sandbox.source import Source
from pipeline.sandbox.video import SandboxedVideo
from pipeline.time_limit import within
from shards.digests import directory_sha256, is_frame
from shards.schema import Reason
from storage.scratch import scratch_folder

CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}
"""FFmpeg's codec of the frames that are read, by suffix in lower case."""
CONTAINER = "frames"
"""Name of the container in outcomes."""
_SIDE = 16
"""Side that the file states: the true one is in the images, which only the sandbox reads."""


class FramesFolder:
    """A directory of frames, opened as a video.

    Args:
        folder: the directory.
        video: the planned frames, in the sandbox.
        times_s: (frames,) presentation time of every frame of the directory.
        planned: (planned,) which of them the sandbox has.
    """

    def __init__(
        self, folder: Path, video: SandboxedVideo, times_s: NDArray[np.float64], planned: NDArray[np.int64]
    ) -> None:
        self._folder = folder
        self._video = video
        self._times_s = times_s
        self._planned = planned

    def sha256(self) -> str:
        """Digest of the directory, as the dataset format defines it.

        Raises:
            DecodeFailed: a name holds a line feed.
            MachineFault: the storage is lost.
        """
        try:
            return directory_sha256(self._folder)
        except ValueError as error:
            raise DecodeFailed(Rejection(Reason.UNREADABLE, str(error))) from error
        except OSError as error:
            raise _unreadable(self._folder, error) from error

    def begin_part(self) -> None:
        """Begin; a directory has no parts."""
        self._video.begin_part()

    def probe(self) -> Probe:
        """Facts about the video; raises as `SandboxedVideo.probe`."""
        found = self._video.probe()
        return replace(found, container=CONTAINER, times_s=self._times_s, start_s=None, late_s=0.0)

    def frames(self, indices: NDArray[np.int64], decoder: str) -> Iterator[Frame | CorruptFrame]:
        """Decode some of the planned frames; raises as `SandboxedVideo.frames`.

        Args:
            indices: ascending, each planned.
            decoder: ignored; PyAV reads images.
        """
        del decoder
        places = np.searchsorted(self._planned, indices)
        for frame in self._video.frames(places, "pyav"):
            index = int(self._planned[frame.index])
            yield replace(frame, index=index, time_s=float(self._times_s[index]))


@contextmanager
def open_frames_folder(
    decoder: SandboxedDecoder,
    folder: Path,
    frame_rate: float,
    plan: Callable[[NDArray[np.float64]], NDArray[np.int64]],
    timeout_s: float,
) -> Iterator[FramesFolder]:
    """Open a directory of frames as a video; what is made for it is gone with the block.

    Args:
        decoder: of the video.
        folder: with the frames; their order is that of their names.
        frame_rate: frames a second.
        plan: which frames are decoded, ascending, by the presentation times of all.
        timeout_s: for the whole block.

    Raises:
        DecodeFailed: there are no frames, or files of other or several formats.
        MachineFault: the storage is lost, or the temporary directory is full.
    """
    with ExitStack() as stack:
        try:
            limit_s = decoder.storage_timeout_s
            names = within(limit_s, str(folder), partial(frame_names, folder))
            codec = _codec(names)
            times_s = np.arange(len(names)) / frame_rate
            planned = plan(times_s)
            made = tempfile.NamedTemporaryFile(suffix=".mov", dir=scratch_folder())  # noqa: SIM115
            path = Path(stack.enter_context(made).name)
            _write(path, [folder / names[index] for index in planned], codec, limit_s)
            source = Source(folder, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise _unreadable(folder, error) from error
        video = SandboxedVideo(decoder, source, timeout_s)
        stack.callback(video.close)
        yield FramesFolder(folder, video, times_s, planned)


def frame_names(folder: Path) -> list[str]:
    """Names of the frames of a directory, in their order: by their bytes.

    Raises:
        DecodeFailed: there are none.
        OSError: the directory cannot be read.
    """
    try:
        found = sorted((entry.name for entry in os.scandir(folder) if is_frame(entry)), key=os.fsencode)
    except NotADirectoryError:
        raise DecodeFailed(Rejection(Reason.UNREADABLE, "it was a directory of frames")) from None
    if not found:
        raise DecodeFailed(Rejection(Reason.EMPTY_FILE, "a directory without frames"))
    return found


def _codec(names: list[str]) -> str:
    suffixes = sorted({Path(name).suffix.lower() for name in names})
    codecs = {CODECS.get(suffix) for suffix in suffixes}
    if len(codecs) > 1 or None in codecs:
        detail = f"frames as {', '.join(suffixes)}; one of JPEG and PNG is read"
        raise DecodeFailed(Rejection(Reason.UNSUPPORTED_CONTAINER, detail))
    return str(codecs.pop())


def _write(path: Path, files: list[Path], codec: str, limit_s: float) -> None:
    import av

    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_mux_stream(codec, rate=1, width=_SIDE, height=_SIDE)
        for number, file in enumerate(files):
            packet = av.Packet(within(limit_s, str(file), file.read_bytes))
            packet.stream = stream
            packet.time_base = Fraction(1)
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.is_keyframe = True
            container.mux(packet)


def _unreadable(folder: Path, error: OSError) -> MachineFault | DecodeFailed:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    if full:
        return MachineFault(
            f"{tempfile.gettempdir()} is full: the frames of {folder} do not fit. Free space there, or set TMPDIR "
            "on the nodes, then run the same command again; it continues"
        )
    if error.errno in LOST_SHARE or not folder.parent.is_dir():
        return MachineFault(
            f"{folder} cannot be read ({error.strerror}). Check that the source is mounted on every node, then "
            "run the same command again; it continues"
        )
    return DecodeFailed(Rejection(Reason.INACCESSIBLE, str(error.strerror or error)))
