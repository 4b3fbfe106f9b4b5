"""Attacks by a decoder that a photograph has taken over; runs confined, in place of `pipeline.photos.child`.

The content of a "photograph" names the attack. What is no attack is answered with a picture of one pixel.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial

import numpy as np

from pipeline.photos.child import ORDER
from pipeline.rejection import Rejection
from pipeline.sandbox import protocol
from pipeline.sandbox.ring import Ring
from shards.schema import Reason


def serve(parent: socket.socket, source: int, memory: int) -> None:
    """Answer requests with attacks."""
    ring = Ring(memory, writable=True)
    while request := parent.recv(protocol.MOST_BYTES):
        offset, length = ORDER.unpack(request)
        attack = os.pread(source, length, offset).decode()
        parent.send(_answer(attack, ring))


def _answer(attack: str, ring: Ring) -> bytes:
    if attack in ENDS:
        ENDS[attack]()
    if attack in LIES:
        return LIES[attack]
    if attack.startswith("read "):
        try:
            with open(attack.removeprefix("read "), "rb") as file:  # noqa: PTH123
                return _rejected(f"read {len(file.read())} bytes")
        except OSError as error:
            return _rejected(f"denied: {error.strerror}")
    ring.put(0, np.full((1, 1, 3), 7, np.uint8))
    return protocol.FRAME.pack(b"F", 0, 0, 1, 1)


ENDS = {
    "crash": os.abort,
    "exec": partial(os.execv, "/bin/true", ["true"]),
    "sleep": partial(time.sleep, 60),
    "exit": partial(os._exit, 0),
}
LIES = {
    "size": protocol.FRAME.pack(b"F", 0, 0, 100_000, 100_000),
    "chatter": b"Zsomething",
    "reason": protocol.write_json(b"R", {"reason": "near_duplicate", "detail": None}),
    "memory": b"M",
}


def _rejected(text: str) -> bytes:
    return protocol.write_rejection(Rejection(Reason.UNREADABLE, text))
