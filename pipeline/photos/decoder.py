"""Decodes photographs in a sandbox: the side of the build.

Every person's photographs are decoded by a fresh process, so a photograph that takes over its decoder reaches the
pixels of the same person, as a video's decoder reaches those of its video. A process that dies costs the
photograph that it was decoding; the next one gets another process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from faces.types import Image
from pipeline.photos.child import ORDER
from pipeline.rejection import Rejection
from pipeline.sandbox import SandboxedDecoder, protocol
from pipeline.sandbox.attempts import Attempts
from pipeline.sandbox.confine import Enforced, Mode
from pipeline.sandbox.ring import Ring
from pipeline.sandbox.server import Child, ChildEnded, ServerDied
from shards.schema import Reason

ENTRY = f"{__package__}.child:serve"
CRASH_RETRIES = 1
EXIT_WAIT_S = 2.0
"""How long a process that closed its socket may take to end by itself."""


class PhotographDecoder:
    """Decodes photographs, those of each call in one confined process.

    Args:
        max_pixels: most pixels of a photograph.
        memory_gb: private memory of a decoding process.
        timeout_s: seconds for one photograph.
        mode: `required` to fail where the kernel cannot enforce all of the sandbox.
        entry: the function that the processes run.

    Raises:
        RuntimeError: the decoders cannot be started, or the mode is `required` and the kernel lacks something.
    """

    def __init__(
        self, *, max_pixels: int, memory_gb: float, timeout_s: float, mode: Mode, entry: str = ENTRY
    ) -> None:
        self._sandbox = SandboxedDecoder(
            memory_gb=memory_gb, mode=mode, frame_pixels=max_pixels, entry=entry, crash_retries=CRASH_RETRIES
        )
        self._timeout_s = timeout_s
        self._details = {
            Reason.TIMEOUT: f"longer than {timeout_s:g} s (run.photograph_timeout_s)",
            Reason.OUT_OF_MEMORY: f"more than {memory_gb:g} GB (run.photograph_memory_gb)",
        }

    @property
    def enforced(self) -> Enforced:
        """What the kernel enforces on the decoding processes."""
        return self._sandbox.enforced

    def decode(self, files: Sequence[bytes]) -> Iterator[Image | Rejection]:
        """The pixels of each photograph, (H, W, 3) RGB upright in sRGB, or why there are none; in their order.

        Args:
            files: of one person.

        Raises:
            MachineFault: no process can be started any more.
        """
        batch = _Batch(self._sandbox, files, self._timeout_s)
        try:
            for number in range(len(files)):
                found = batch.image(number, Attempts(CRASH_RETRIES, ""))
                if isinstance(found, Rejection):
                    found = replace(found, detail=self._details.get(found.reason, found.detail))
                yield found
        finally:
            batch.close()

    def close(self) -> None:
        """End the processes."""
        self._sandbox.close()


class _Batch:
    """Some photographs in one file without a name, and the process that decodes them."""

    def __init__(self, sandbox: SandboxedDecoder, files: Sequence[bytes], timeout_s: float) -> None:
        self._sandbox = sandbox
        self._timeout_s = timeout_s
        self._lengths = [len(data) for data in files]
        self._source = os.memfd_create("photographs", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self._source), "wb") as file:
            file.writelines(files)
        self._memory = sandbox.new_memory()
        self._ring = Ring(self._memory, writable=False)
        self._child: Child | None = None

    def image(self, number: int, attempts: Attempts) -> Image | Rejection:
        """The pixels of a photograph, or why there are none."""
        while True:
            rejection: Rejection | None
            try:
                return self._asked(number, time.monotonic() + self._timeout_s)
            except TimeoutError:
                rejection = Rejection(Reason.TIMEOUT)
            except protocol.HostileMessage as error:
                rejection = Rejection(Reason.DECODER_CRASHED, f"the decoder broke its protocol: {error}")
            except ChildEnded:
                rejection = self._check_end(attempts)
            except ServerDied:
                rejection = attempts.killed("the process that starts decoders was ended")
            self._stop()
            if rejection is not None:
                return rejection

    def _asked(self, number: int, deadline: float) -> Image | Rejection:
        if self._child is None:
            left = len(self._lengths) - number
            self._child = self._sandbox.start(self._source, self._memory, self._timeout_s * left)
            self._sandbox.check_confined(self._child, deadline)
        self._child.send(ORDER.pack(sum(self._lengths[:number]), self._lengths[number]), deadline)
        message = self._child.receive(deadline)
        kind = message[:1]
        if kind == b"R":
            return protocol.read_rejection(message[1:])
        if kind == b"M":
            self._stop()  # what it holds is not given back to the next photograph
            return Rejection(Reason.OUT_OF_MEMORY)
        if kind != b"F":
            raise protocol.HostileMessage(f"a message of type {kind!r}")
        _, slot, height, width = protocol.read_frame(message, self._ring.slot_pixels)
        return self._ring.image(slot, height, width)

    def _check_end(self, attempts: Attempts) -> Rejection | None:
        child, self._child = self._child, None
        assert child is not None  # noqa: S101 - only a running process ends
        try:
            code = child.end(EXIT_WAIT_S)
        except ServerDied:
            return attempts.killed("the process that starts decoders was ended")
        if code is None:
            return Rejection(Reason.DECODER_CRASHED, "the decoder broke its protocol: it closed its socket")
        return attempts.ended(code)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            try:
                child.end()
            except ServerDied:
                return  # it is replaced when the next process is needed

    def close(self) -> None:
        """End the process and give the memory back."""
        self._stop()
        self._ring.close()
        os.close(self._memory)
        os.close(self._source)
