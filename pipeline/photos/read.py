"""Reads the bytes of a person's photographs, from a directory or an object store.

The bytes are read once, outside of the sandbox: they are hashed and handed on, and only the sandbox parses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.photos.listing import Person, PhotographFile
from pipeline.rejection import Rejection
from pipeline.sandbox.source import open_source
from shards.canonical import sha256_hex
from shards.digests import digest_of
from shards.schema import Reason
from storage.errors import NoSuchFile
from storage.path import AnyPath, ObjectPath

MOST_BYTES = 2**28
"""Bytes of the largest file that is read. JPEGs of telephones have up to 60 MB."""
BATCH_FILES, BATCH_BYTES = 64, 2**27
"""Photographs that are read, and then decoded by one process: bounds of the memory that they take."""
NO_BYTES = sha256_hex(b"")


@dataclass(frozen=True)
class ReadFile:
    """A photograph whose bytes are read.

    Attributes:
        frame: its place among the files of the person.
        data: its bytes; empty where it is rejected.
        rejection: why it is.
    """

    frame: int
    data: bytes
    rejection: Rejection | None = None

    @property
    def sha256(self) -> str | None:
        """Of the file; None where it is not known."""
        if self.rejection is None:
            return sha256_hex(self.data)
        return NO_BYTES if self.rejection.reason is Reason.EMPTY_FILE else None


def read_batches(person: Person, timeout_s: float) -> Iterator[list[ReadFile]]:
    """The photographs of a person in batches, in their order.

    Args:
        person: whose photographs are read.
        timeout_s: seconds that the storage may take for one answer.

    Raises:
        MachineFault: the storage is lost.
        StorageError: the object store cannot be read.
    """
    batch: list[ReadFile] = []
    held = 0
    for frame, file in enumerate(person.files):
        found = read_file(person.path, file, timeout_s)
        read = ReadFile(frame, b"", found) if isinstance(found, Rejection) else ReadFile(frame, found)
        if batch and (len(batch) == BATCH_FILES or held + len(read.data) > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        held += len(read.data)
        batch.append(read)
    if batch:
        yield batch


def read_file(folder: AnyPath, file: PhotographFile, timeout_s: float) -> bytes | Rejection:
    """The bytes of a photograph, or why there are none: a pipe, a device or a lost link blocks nothing.

    Args:
        folder: of the person.
        file: as it was listed.
        timeout_s: seconds that the storage may take for one answer.

    Raises:
        MachineFault: the storage is lost.
        StorageError: the object store cannot be read.
    """
    if "\n" in file.name:
        return Rejection(Reason.UNREADABLE, "its name contains a line feed. Rename it")
    if isinstance(folder, ObjectPath):
        return _read_object(folder / file.name, file.bytes)
    source = open_source(folder / file.name, timeout_s)
    if isinstance(source, Rejection):
        return source
    try:
        return source.read() if source.size <= MOST_BYTES else _too_large(source.size)
    finally:
        source.close()


def _read_object(path: ObjectPath, size: int) -> bytes | Rejection:
    if size == 0:
        return Rejection(Reason.EMPTY_FILE, "0 bytes")
    if size > MOST_BYTES:
        return _too_large(size)
    try:
        return bytes(path.bucket.large(path.key, size))
    except NoSuchFile as error:
        return Rejection(Reason.INACCESSIBLE, f"{error.message}, but it was listed")


def _too_large(size: int) -> Rejection:
    return Rejection(Reason.FRAME_TOO_LARGE, f"{size:,} bytes; at most {MOST_BYTES:,} are read")


def digest_of_person(files: Sequence[PhotographFile], digests: Sequence[str | None]) -> str | None:
    """The digest of a person's directory, as the dataset format defines it.

    Args:
        files: all photographs, sorted by the bytes of their names.
        digests: sha256 of each.

    Returns:
        None where there is no photograph, or the bytes of one are not known.
    """
    known = [digest for digest in digests if digest is not None]
    if not known or len(known) < len(digests):
        return None
    return digest_of(zip((os.fsencode(file.name) for file in files), known, strict=True))
