"""The manifest: one row for each video that the build must account for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from shards.schema import Record


def printable(name: str) -> str:
    r"""A file name that any record, terminal or page can hold; different names stay different.

    Odd bytes (names that are not UTF-8) become `\xNN`, characters that do not print `\uNNNN`, and a backslash
    is doubled, so that the text can be turned back.
    """
    return "".join(_shown(character) for character in name)


def _shown(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character if character.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def original(text: str) -> str:
    """The file name behind a printable one."""

    def character(match: re.Match[str]) -> str:
        kind, digits = match[1][0], match[1][1:]
        if kind == "\\":
            return kind
        return chr(int(digits, 16) + (0xDC00 if kind == "x" else 0))

    return re.sub(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", character, text)


def _path(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str):
        raise ValueError("a path is expected")
    return original(value) if info.mode == "json" else value


FilePath = Annotated[str, PlainValidator(_path), PlainSerializer(printable, when_used="json")]
"""A path as the operating system takes it (odd bytes as surrogates), which JSON can carry all the same."""


class Video(Record):
    """One input video, as its source lists it."""

    video_id: str
    """Unique within the build and stable over runs: `<source name>/<uri>`; see `printable`."""
    source: str
    uri: str
    """Relative to the source's root, with `/`."""
    path: FilePath
    """Absolute path, as all nodes of the cluster see it."""
    origin: str | None = None
    license: str | None = None
    bytes: int
    modified_ns: int


class Manifest(Record):
    """All videos of a build, sorted by id, and the files that were ignored while listing them."""

    videos: list[Video]
    ignored: dict[str, int]
    """Files that do not look like videos: file name ending -> count."""


class SourceError(ValueError):
    """A source cannot be listed; the message says what to do."""
