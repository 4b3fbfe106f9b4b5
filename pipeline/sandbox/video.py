"""One video in its sandbox: the exchange with its decoding process, and the outcome when that ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.attempts import Attempts, DecodeFailed
from pipeline.sandbox.decoding import CorruptFrame, Frame, Probe
from pipeline.sandbox.ring import Ring
from pipeline.sandbox.server import Child, ChildEnded, ServerDied
from pipeline.sandbox.source import Source
from shards.schema import Reason

EXIT_WAIT_S = 2.0
"""How long a process that closed its socket may take to end by itself."""
_OF_READING = frozenset(
    {
        Reason.UNREADABLE,
        Reason.TRUNCATED_FILE,
        Reason.DECODE_ERROR,
        Reason.NO_VIDEO_STREAM,
        Reason.INTERNAL_ERROR,
    }
)
"""Reasons that a decoder gives when the storage is lost."""


class Processes(Protocol):
    """What starts decoding processes."""

    def start(self, source: int, memory: int, cpu_s: float) -> Child:
        """A new process for the open video."""

    def check_confined(self, child: Child, deadline: float) -> None:
        """Check its sandbox."""

    def new_memory(self) -> int:
        """Shared memory for its frames."""

    def new_attempts(self) -> Attempts:
        """A count of its ends."""


class _Rejected(Exception):  # noqa: N818 - names the event
    """The decoder rejects the video."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__()
        self.rejection = rejection


class _ReadFailed(Exception):  # noqa: N818 - names the event
    """The decoder reports that a read failed; a decoder that was taken over may report it too."""


class SandboxedVideo:
    """One open video. Its process starts on demand, and starts again when it died and the video is tried again.

    Args:
        decoder: starts processes.
        source: the open file.
        timeout_s: for the whole video, from now on; with several parts, for each from its `begin_part` on.
        parts: how many parts of the file are decoded.
    """

    def __init__(self, decoder: Processes, source: Source, timeout_s: float, parts: int = 1) -> None:
        self._decoder = decoder
        self._source = source
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._parts = parts
        self._attempts = decoder.new_attempts()
        self._sha256 = ""
        self._memory = decoder.new_memory()
        self._ring = Ring(self._memory, writable=False)
        self._child: Child | None = None
        self._found: Probe | None = None

    def sha256(self) -> str:
        """Sha256 of the file's content, read outside of the sandbox.

        Raises:
            MachineFault: the storage is lost.
        """
        self._sha256 = self._sha256 or self._source.sha256()
        return self._sha256

    def begin_part(self) -> None:
        """Give the next part its own time and attempts; what is known of the file stays known."""
        self._deadline = time.monotonic() + self._timeout_s
        self._attempts = self._decoder.new_attempts()

    def probe(self) -> Probe:
        """Facts about the video before frames are decoded.

        Raises:
            DecodeFailed: the video is dropped.
            MachineFault: the storage is lost.
        """
        while self._found is None:
            with self._checked_end():
                child = self._running()
                child.send(protocol.write_json(b"", {"do": "probe"}), self._deadline)
                self._found = self._read_probe(self._receive(child, b"P"))
        return self._found

    def frames(self, indices: NDArray[np.int64], decoder: str) -> Iterator[Frame | CorruptFrame]:
        """Decode the frames at `indices`, which ascend; an index that shows no frame of its own is skipped.

        Raises:
            DecodeFailed: the video is dropped; the frames before are sound.
            MachineFault: the storage is lost.
        """
        times_s = self.probe().times_s
        left = deque(indices.tolist())
        ordered_of: Child | None = None
        ended = not left
        try:
            while not ended:
                frame: Frame | CorruptFrame | None = None
                with self._checked_end():
                    if time.monotonic() > self._deadline:  # the caller's own work counts too
                        raise TimeoutError
                    child = self._running()
                    if child is not ordered_of:
                        self._order(child, left, decoder)
                        ordered_of = child
                    frame = self._next_frame(child, left, times_s)
                    ended = frame is None
                if frame is not None:
                    yield frame
        finally:
            if not ended:
                self._stop()

    def close(self) -> None:
        """End the process and give the memory back."""
        self._stop()
        self._ring.close()
        os.close(self._memory)
        self._source.close()

    def _running(self) -> Child:
        if self._child is None:
            # A process lives on from part to part, so its processor time must last for all of them.
            left_s = max(self._deadline - time.monotonic(), 1.0) + (self._parts - 1) * self._timeout_s
            self._child = self._decoder.start(self._source.descriptor, self._memory, left_s)
            self._decoder.check_confined(self._child, self._deadline)
        return self._child

    def _order(self, child: Child, left: deque[int], decoder: str) -> None:
        os.pwrite(self._memory, np.array(left, dtype=np.int64).tobytes(), 0)
        order = {"do": "frames", "decoder": decoder, "count": len(left)}
        child.send(protocol.write_json(b"", order), self._deadline)

    def _receive(self, child: Child, *kinds: bytes) -> bytes:
        """The next message, of one of these types; a message that ends the video is raised."""
        message = child.receive(self._deadline)
        kind = message[:1]
        if kind == b"R":
            raise _Rejected(protocol.read_rejection(message[1:]))
        if kind == b"M":
            raise _Rejected(self._attempts.out_of_memory())
        if kind == b"L":
            raise _ReadFailed
        if kind not in kinds:
            raise protocol.HostileMessage(
                f"a message of type {kind!r} instead of {' or '.join(map(repr, kinds))}"
            )
        return message

    def _read_probe(self, message: bytes) -> Probe:
        fields, frames = protocol.read_probe_fields(message[1:])
        if frames * 8 > self._ring.slot_bytes:
            raise protocol.HostileMessage("more frame times than fit")
        times_s = protocol.check_times(self._ring.times(frames))
        found = Probe(**fields, times_s=times_s)
        sizes = (found.coded_width * found.coded_height, found.shown_size[0] * found.shown_size[1])
        if not all(0 < size <= self._ring.slot_pixels for size in sizes):
            raise protocol.HostileMessage("a frame size out of range")
        return found

    def _next_frame(
        self, child: Child, left: deque[int], times_s: NDArray[np.float64]
    ) -> Frame | CorruptFrame | None:
        """The next frame; removes it from `left` with the earlier ones that the decoder skips. None at the end."""
        message = self._receive(child, b"F", b"D", b"E")
        if message[:1] == b"E":
            return None
        if message[:1] == b"D":
            index = protocol.read_damaged(message)
            _take(left, index)
            return CorruptFrame(index, float(times_s[index]))
        index, slot, height, width = protocol.read_frame(message, self._ring.slot_pixels)
        _take(left, index)
        image = self._ring.image(slot, height, width)
        with contextlib.suppress(ChildEnded):  # this frame is whole; the next message tells of the end
            child.send(protocol.FREE, self._deadline)
        return Frame(index, float(times_s[index]), image)

    @contextmanager
    def _checked_end(self) -> Iterator[None]:
        """Turn the end of the exchange into a rejection or an error; return when the video is tried again."""
        rejection: Rejection | None = None
        try:
            yield
            return
        except _Rejected as error:
            rejection = error.rejection
        except TimeoutError as error:
            self._check_disk(error)
            limit = f"longer than {self._timeout_s:g} s (run.video_timeout_s)"
            rejection = Rejection(Reason.TIMEOUT, f"{limit}; --retry-failed tries again")
        except protocol.HostileMessage as error:
            rejection = Rejection(Reason.DECODER_CRASHED, f"the decoder broke its protocol: {error}")
        except ChildEnded:
            rejection = self._check_end()
        except ServerDied:
            rejection = self._attempts.killed("the process that starts decoders was ended")
        except _ReadFailed:
            rejection = self._attempts.killed(
                "the decoder could not read the file, which reads well outside of it"
            )
        self._stop()
        if rejection is None or rejection.reason in _OF_READING:
            rejection = self._source.check() or rejection
        if rejection is not None:
            raise DecodeFailed(rejection)

    def _check_end(self) -> Rejection | None:
        child, self._child = self._child, None
        assert child is not None  # noqa: S101 - only a running process ends
        try:
            code = child.end(EXIT_WAIT_S)
        except ServerDied:
            return self._attempts.killed("the process that starts decoders was ended")
        if code is None:
            return Rejection(Reason.DECODER_CRASHED, "the decoder broke its protocol: it closed its socket")
        return self._attempts.ended(code)

    def _check_disk(self, error: TimeoutError) -> None:
        if self._child is not None and self._child.waits_for_disk():
            self._stop()
            raise MachineFault(
                f"{self._source.path} cannot be read: the decoder waits for its storage. Check the storage, then "
                "run the same command again; it continues"
            ) from error

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            # A server that died is replaced when the next process is needed.
            with contextlib.suppress(ServerDied):
                child.end()


def _take(left: deque[int], index: int) -> None:
    """Remove a frame and those before it from the requested frames.

    Raises:
        HostileMessage: it is not among them; so frames ascend, and their number has a limit.
    """
    while left and left[0] < index:
        left.popleft()
    if not left or left.popleft() != index:
        raise protocol.HostileMessage("a frame that was not asked for")
