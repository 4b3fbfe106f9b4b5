"""Decodes videos in a sandbox: an actor of the build holds a decoder, and opens each video with it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.attempts import Attempts, DecodeFailed
from pipeline.sandbox.confine import Enforced, Mode, Policy
from pipeline.sandbox.ring import create_memory
from pipeline.sandbox.server import START_TIMEOUT_S, Child, ChildEnded, ForkServer, ServerDied
from pipeline.sandbox.source import STORAGE_TIMEOUT_S, open_source
from pipeline.sandbox.video import EXIT_WAIT_S, SandboxedVideo

FRAME_PIXELS = 8192 * 4352
"""Pixels of the largest frame that is decoded: 8K in any shape."""
DECODER_ENTRY = f"{__package__}.child:serve"


class SandboxedDecoder:
    """Decodes videos, each in a fresh process that can only decode it.

    Args:
        memory_gb: private memory of a decoding process.
        crash_retries: how often a video is tried again after its process crashed.
        mode: `required` to fail where the kernel cannot enforce all of the sandbox.
        frame_pixels: of the largest frame that is decoded.
        threads: let decoders start threads; decord needs them.
        entry: the function that the processes run.
        storage_timeout_s: seconds that the storage of a video may take for one answer.

    Raises:
        RuntimeError: the decoders cannot be started, or the mode is `required` and the kernel lacks something.
    """

    def __init__(
        self,
        *,
        memory_gb: float = 8.0,
        crash_retries: int = 1,
        mode: Mode = "best_effort",
        frame_pixels: int = FRAME_PIXELS,
        threads: bool = False,
        entry: str = DECODER_ENTRY,
        storage_timeout_s: float = STORAGE_TIMEOUT_S,
    ) -> None:
        self._memory_gb = memory_gb
        self._crash_retries = crash_retries
        self._frame_pixels = frame_pixels
        self._threads = threads
        self._entry = entry
        self.storage_timeout_s = storage_timeout_s
        self._server: ForkServer | None = None
        self.enforced = self._try_out()
        if mode == "required" and self.enforced.missing:
            self.close()
            raise RuntimeError(
                f"run.sandbox=required, but this machine lacks {'; '.join(self.enforced.missing)}. Use a newer "
                "kernel, or run.sandbox=best_effort to decode with what there is"
            )

    @contextmanager
    def open(self, path: Path, timeout_s: float, parts: int = 1) -> Iterator[SandboxedVideo]:
        """Open a video; its processes end with the block.

        Args:
            path: of the file.
            timeout_s: wall-clock seconds for the whole block; with several parts, for each of them.
            parts: how many parts of the file are decoded.

        Raises:
            DecodeFailed: it is not a regular file, or it is empty.
            MachineFault: the storage is lost.
        """
        source = open_source(path, self.storage_timeout_s)
        if isinstance(source, Rejection):
            raise DecodeFailed(source)
        video = SandboxedVideo(self, source, timeout_s, parts)
        try:
            yield video
        finally:
            video.close()

    def close(self) -> None:
        """End the fork server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def start(self, source: int, memory: int, cpu_s: float) -> Child:
        """A confined process for one video; a fork server that died is replaced.

        Raises:
            ServerDied: twice in a row.
            MachineFault: no fork server starts on this machine any more.
        """
        shared = os.fstat(memory).st_size
        policy = Policy(int(self._memory_gb * 2**30), cpu_s, shared, self._threads)
        if self._server is not None:
            with contextlib.suppress(ServerDied):
                return self._server.fork(policy, source, memory)
            self.close()
        try:
            self._server = ForkServer(self._entry)
        except RuntimeError as error:
            raise MachineFault(
                f"{error}. Check the memory and the process limit of the machine, then run the same command "
                "again; it continues"
            ) from error
        return self._server.fork(policy, source, memory)

    def new_memory(self) -> int:
        """Descriptor of shared memory for one video's frames."""
        return create_memory(self._frame_pixels)

    def new_attempts(self) -> Attempts:
        """A count of the ends of one video's processes."""
        return Attempts(self._crash_retries, f"{self._memory_gb:g} GB (run.video_memory_gb)")

    def check_confined(self, child: Child, deadline: float) -> None:
        """Check that a process is as confined as the first one was, before it sees the video.

        Raises:
            MachineFault: it is not.
        """
        enforced = _enforced_of(child, deadline)
        if enforced != self.enforced:
            raise MachineFault(f"a decoder's sandbox is {enforced}, not {self.enforced} as at the start")

    def _try_out(self) -> Enforced:
        """Confine a process that decodes no video, and return what is enforced."""
        memory = self.new_memory()
        empty = os.memfd_create("empty", os.MFD_CLOEXEC)
        try:
            child = self.start(empty, memory, cpu_s=10.0)
            try:
                enforced = _enforced_of(child, time.monotonic() + START_TIMEOUT_S)
            except (TimeoutError, ChildEnded, protocol.HostileMessage) as error:
                code = child.end(EXIT_WAIT_S)
                raise RuntimeError(f"the decoders' sandbox does not start (exit code {code})") from error
            child.end()
        finally:
            os.close(memory)
            os.close(empty)
        return enforced


def _enforced_of(child: Child, deadline: float) -> Enforced:
    message = child.receive(deadline)
    if message[:1] != b"C":
        raise protocol.HostileMessage("the first message is another one")
    return protocol.read_enforced(message[1:])
