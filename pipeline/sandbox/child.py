"""The work of a decoding process once it is confined: answer its parent about its one video."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import cv2

from pipeline.errors import MachineFault
from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.decoding import CorruptFrame, DecodeError, Frame, Probe, decode, probe
from pipeline.sandbox.ring import SLOTS, Ring
from shards.schema import Reason


def serve(parent: socket.socket, source: int, memory: int) -> None:
    """Answer requests until the parent closes the socket."""
    decoder = _Decoder(parent, source, memory)
    while request := parent.recv(protocol.MOST_BYTES):
        if request != protocol.FREE:  # left over from frames that needed no more slots
            decoder.answer(json.loads(request))


class _Decoder:
    def __init__(self, parent: socket.socket, source: int, memory: int) -> None:
        self._parent = parent
        self._path = Path(f"/proc/self/fd/{source}")
        self._ring = Ring(memory, writable=True)
        self._probe: Probe | None = None

    def answer(self, request: dict[str, object]) -> None:
        """Do the request; any failure becomes a message."""
        try:
            if request["do"] == "probe":
                self._parent.send(self._look())
            else:
                self._send_frames(str(request["decoder"]), int(str(request["count"])))
        except MachineFault:
            self._parent.send(b"L")
        except MemoryError:
            self._parent.send(b"M")
        except DecodeError as error:
            self._parent.send(protocol.write_rejection(Rejection(Reason.DECODE_ERROR, str(error))))
        except cv2.error as error:
            self._parent.send(b"M" if error.code == cv2.Error.StsNoMem else _internal(error))
        except Exception as error:  # any error belongs to this video's row
            self._parent.send(_internal(error))

    def _look(self) -> bytes:
        found = probe(self._path)
        if isinstance(found, Rejection):
            return protocol.write_rejection(found)
        larger = max(found.coded_width * found.coded_height, found.shown_size[0] * found.shown_size[1])
        if larger > self._ring.slot_pixels:
            size = f"{found.coded_width} x {found.coded_height} pixels"
            detail = f"{size}; at most {self._ring.slot_pixels} are decoded"
            return protocol.write_rejection(Rejection(Reason.FRAME_TOO_LARGE, detail))
        if found.times_s[-1] > protocol.LONGEST_S:  # a damaged time, most likely
            detail = (
                f"its last frame is at {found.times_s[-1]:.0f} s; at most {protocol.LONGEST_S:.0f} s are read"
            )
            return protocol.write_rejection(Rejection(Reason.UNREADABLE, detail))
        self._probe = found
        self._ring.put(0, found.times_s)
        return protocol.write_probe(found)

    def _send_frames(self, decoder: str, count: int) -> None:
        if self._probe is None:
            self._probe = _probe_again(self._path)
        indices = self._ring.indices(count)
        free = SLOTS
        slots = _turns()
        for frame in decode(self._path, self._probe, indices, decoder):
            if isinstance(frame, CorruptFrame):
                self._parent.send(protocol.DAMAGED.pack(b"D", frame.index))
                continue
            if free == 0:
                if not self._parent.recv(1):
                    return
                free += 1
            free -= 1
            self._send_frame(next(slots), frame)
        self._parent.send(b"E")

    def _send_frame(self, slot: int, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        if frame.image.nbytes > self._ring.slot_bytes:
            raise DecodeError(f"frame {frame.index} has {width} x {height} pixels, more than are decoded")
        self._ring.put(slot, frame.image)
        self._parent.send(protocol.FRAME.pack(b"F", frame.index, slot, height, width))


def _turns() -> Iterator[int]:
    while True:
        yield from range(SLOTS)


def _probe_again(path: Path) -> Probe:
    found = probe(path)
    if isinstance(found, Rejection):
        raise DecodeError(f"the file could be probed once, but not twice: {found.detail}")
    return found


def _internal(error: Exception) -> bytes:
    detail = " ".join(f"{type(error).__name__}: {error}".split())
    return protocol.write_rejection(Rejection(Reason.INTERNAL_ERROR, detail))
