"""Reads a large JSON object member by member: parsed as a whole, it takes six times the memory of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

PIECE = 2**16
"""Characters that are read at once."""

_SPACE = re.compile(r"[ \t\n\r]*")


class JsonReader:
    """Reads one JSON text. All methods raise ValueError where it is not JSON, RecursionError where it is too deep.

    Args:
        file: opened with `newline=""`, so that errors name the right character.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = self._dropped = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = len(self._text) if match is None else match.end()
            if self._at < len(self._text) or not self._read_more():
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value, as `json.loads` gives it."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._read_more():
                    continue
                raise self._error(error.msg, error.pos) from error
            # The next piece may go on with the same number: of `1e+|5`, `1` was read.
            if end + 2 < len(self._text) or not self._read_more():
                self._at = end
                return value

    def members(self) -> Iterator[str]:
        """The names in the next object; before the next one, the member's value must be read."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._at)
            name: str = self.value()
            self._take(":")
            yield name
            if self.peek() != ",":
                self._take("}")
                return
            self._take(",")

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self._error("Extra data", self._at)

    def _take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self._error(f"Expecting {expected!r}", self._at)
        self._at += 1

    def _read_more(self) -> bool:
        # As much again as is held, so that a long value is not parsed again for every piece.
        more = self._file.read(max(PIECE, len(self._text) - self._at))
        if not more:
            return False
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return True

    def _error(self, what: str, at: int) -> ValueError:
        return ValueError(f"{what}: character {self._dropped + at}")
