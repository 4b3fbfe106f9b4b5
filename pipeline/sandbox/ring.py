"""Shared memory between a build's process and a decoding one: a few slots for frames.

The memory is sparse: a slot is as large as the largest frame allowed, but only pages that are written exist.
Its size is sealed, so the decoder cannot shrink it while it is read. The reader copies a frame out before it
looks at it, so checked pixels cannot change afterwards.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np
from numpy.typing import NDArray

SLOTS = 4
"""Frames that a decoder may be ahead of the networks."""
CHANNELS = 3


class Ring:
    """The slots, mapped into this process.

    Args:
        descriptor: of the shared memory; the caller keeps it.
        writable: whether this side is the decoder.
    """

    def __init__(self, descriptor: int, writable: bool) -> None:
        self.slot_bytes = os.fstat(descriptor).st_size // SLOTS
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(descriptor, SLOTS * self.slot_bytes, mmap.MAP_SHARED, protection)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)

    @property
    def slot_pixels(self) -> int:
        """Pixels of the largest frame that fits into a slot."""
        return self.slot_bytes // CHANNELS

    def put(self, slot: int, data: NDArray[np.generic]) -> None:
        """Write an array's bytes to the start of a slot.

        Raises:
            ValueError: it is larger than the slot.
        """
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        if flat.nbytes > self.slot_bytes:
            raise ValueError(f"{flat.nbytes} bytes do not fit into a slot of {self.slot_bytes}")
        start = slot * self.slot_bytes
        self._bytes[start : start + flat.nbytes] = flat

    def image(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """A copy (height, width, 3) of the frame in a slot; the caller has checked that it fits."""
        start = slot * self.slot_bytes
        flat = self._bytes[start : start + height * width * CHANNELS]
        return flat.copy().reshape(height, width, CHANNELS)

    def times(self, count: int) -> NDArray[np.float64]:
        """A copy (count,) of the seconds in the first slot; the caller has checked that they fit."""
        return self._bytes[: count * 8].copy().view(np.float64)

    def indices(self, count: int) -> NDArray[np.int64]:
        """A copy (count,) of the frame indices in the first slot."""
        return self._bytes[: count * 8].copy().view(np.int64)

    def close(self) -> None:
        """Unmap the memory."""
        del self._bytes
        self._map.close()


def create_memory(frame_pixels: int) -> int:
    """Descriptor of new shared memory for frames of up to so many pixels; its size is sealed."""
    slot_bytes = -(-frame_pixels * CHANNELS // mmap.PAGESIZE) * mmap.PAGESIZE
    descriptor = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)  # the name shows in /proc
    os.ftruncate(descriptor, SLOTS * slot_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
