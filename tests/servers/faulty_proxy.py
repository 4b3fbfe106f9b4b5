"""A proxy in front of an HTTP server that spoils a share of the answers, in the same way each time."""

from __future__ import annotations

import random
import re
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

FAULTS = ("error", "reset", "stall", "truncate")
"""A server error; a connection that is reset; one that falls silent; a body that ends before its length."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Answer(NamedTuple):
    """A request that the server answered, with the bytes of both bodies."""

    method: str
    path: str
    sent: int
    received: int


class FaultyProxy(socketserver.ThreadingTCPServer):
    """Hands requests on, one connection to the server for each connection of a client."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, server_port: int, share: float, faults: Sequence[str], stall_s: float, seed: int
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.server_port, self.stall_s = server_port, stall_s
        self.port: int = self.server_address[1]
        self.share, self.faults = share, list(faults)
        self.denied = ""
        """Code of the error with which writes are refused; empty to let them through."""
        self.archived = ""
        """Requests whose path has this text are refused, as of an object that has to be restored first."""
        self.counts: Counter[str] = Counter()
        self.paths: list[str] = []
        self.answered: list[Answer] = []
        """What was handed on, in order."""
        self._random = random.Random(seed)  # noqa: S311 - for faults
        self._drawing = threading.Lock()
        self.ended = threading.Event()

    def draw(self, path: str) -> str | None:
        """The fault of the next request."""
        with self._drawing:
            self.paths.append(path)
            fault = self._random.choice(self.faults) if self._random.random() < self.share else None
            self.counts[fault or "none"] += 1
            return fault


class _Connection(socketserver.BaseRequestHandler):
    server: FaultyProxy

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.server_port)) as upstream:
            try:
                while head := _head(self.request):
                    if not self._answer(head, upstream):
                        return
            except OSError:
                return  # a client that gave up

    def _answer(self, request: bytes, upstream: socket.socket) -> bool:
        """Answer a request; returns whether the connection goes on."""
        method, path = request.split(b" ", 2)[:2]
        sent = _exactly(self.request, _length(request))
        archived = self.server.archived and self.server.archived in path.decode() and method == b"GET"
        if archived or (self.server.denied and method in {b"PUT", b"POST", b"DELETE"}):
            code = "InvalidObjectState" if archived else self.server.denied
            text = b"<Error><Code>%s</Code></Error>" % code.encode()
            self.request.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
            return True
        fault = self.server.draw(path.decode())
        if fault == "error":
            self.request.sendall(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 4\r\n\r\nbusy")
            return True
        if fault == "stall":
            self.server.ended.wait(self.server.stall_s)
            return False
        upstream.sendall(request + sent)
        head = _head(upstream)
        body = b"" if method == b"HEAD" else _exactly(upstream, _length(head))
        if fault == "reset":
            # Linger for no time: the connection ends with a reset.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault == "truncate":
            self.request.sendall(head + body[: len(body) // 2])
            return False
        if fault == "shorten":
            body = body[: len(body) // 2]
            head = _LENGTH.sub(b"\r\ncontent-length: %d" % len(body), head)
        if fault == "corrupt" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        self.server.answered.append(Answer(method.decode(), path.decode(), len(sent), len(body)))
        self.request.sendall(head + body)
        return True


def _head(connection: socket.socket) -> bytes:
    """The lines of a message before its body; nothing when the connection has ended."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _length(head: bytes) -> int:
    """Bytes of the body that follows; nothing here is sent in chunks of unknown length."""
    assert b"transfer-encoding" not in head.lower(), head
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _exactly(connection: socket.socket, length: int) -> bytes:
    body = bytearray()
    while len(body) < length:
        received = connection.recv(min(length - len(body), 2**20))
        if not received:
            raise ConnectionError("the other side has left")
        body += received
    return bytes(body)


@contextmanager
def spoiling(
    server_port: int,
    share: float,
    faults: Sequence[str] = FAULTS,
    stall_s: float = 30.0,
    seed: int = 0,
) -> Iterator[FaultyProxy]:
    """Run a proxy that spoils a share of the requests."""
    with FaultyProxy(server_port, share, faults, stall_s, seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            proxy.shutdown()
            thread.join()
