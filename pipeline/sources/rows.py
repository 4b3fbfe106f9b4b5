"""The files and the annotated clips of one source, in a temporary database.

A source may have a million of both. SQLite holds a few in memory and the rest in a temporary file without a name,
so that listing takes the same memory however many there are. Matching names and sorting are queries.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.sources.annotations.clip import AnnotatedClip
from pipeline.sources.manifest import MOST_NAMED, Extent, SourceError
from shards.schema import Attribute

CACHE_KB = 16_384
"""Pages that SQLite holds in memory."""

_SCHEMA = f"""
PRAGMA cache_size = -{CACHE_KB};
PRAGMA temp_store = FILE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE listed (name TEXT, uri TEXT, path BLOB, bytes INTEGER, modified_ns TEXT, is_folder INTEGER);
CREATE TABLE files (
    name TEXT PRIMARY KEY, uri TEXT, path BLOB, bytes INTEGER, modified_ns TEXT, is_folder INTEGER
) WITHOUT ROWID;
CREATE TABLE clips (
    key TEXT PRIMARY KEY, part TEXT, content TEXT, seconds REAL, is_rate_assumed INTEGER, is_conflicting INTEGER,
    file TEXT
) WITHOUT ROWID;
"""
# Times are text, because those of a damaged file system may not fit 64 bits.
_FILE = "files.uri, files.path, files.bytes, files.modified_ns, files.is_folder"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A video file, or a directory of frames.

    Attributes:
        uri: path relative to the source's root, printable.
        path: the same as the system has it.
        bytes: size; of a directory, that of its frames.
        modified_ns: time of change; of a directory, the latest of its frames.
        is_folder: whether it is a directory of frames.
    """

    uri: str
    path: str
    bytes: int
    modified_ns: int
    is_folder: bool = False


class SourceRows:
    """The files and clips of one source. All methods raise SourceError when the temporary file cannot be used."""

    def __init__(self) -> None:
        with _usable():
            self._db = sqlite3.connect("")  # the empty name is that of a private temporary database
            self._db.executescript(_SCHEMA)

    def add_file(self, file: FoundFile, name: str) -> None:
        """Add a file under the name that a clip finds it by."""
        path = os.fsencode(file.path)
        row = (name, file.uri, path, file.bytes, str(file.modified_ns), file.is_folder)
        with _usable():
            self._db.execute("INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?)", row)

    def add_clip(self, clip: AnnotatedClip, frame_rate: float) -> None:
        """Add an annotated clip, unless its key is there; `frame_rate` is assumed where its own is not known."""
        with _usable():
            added = self._db.execute(
                "INSERT OR IGNORE INTO clips VALUES (?, ?, ?, ?, ?, FALSE, NULL)",
                (clip.key, clip.part, _text(clip), clip.seconds(frame_rate), clip.has_no_rate),
            )
            if not added.rowcount and self._clip(clip.key) != clip:
                self._db.execute("UPDATE clips SET is_conflicting = TRUE WHERE key = ?", (clip.key,))

    def add_named(self, clip: AnnotatedClip, frame_rate: float) -> None:
        """Add a clip that only the name of a file stands for; what is annotated of it counts more."""
        with _usable():
            if self._one("SELECT COUNT(*) FROM clips WHERE key = ?", clip.key) == 0:
                self.add_clip(clip, frame_rate)

    def take_all(self) -> Extent:
        """Make every file a video, in the order of their names."""
        with _usable():
            self._choose_files()
            count, size = self._row("SELECT COUNT(*), TOTAL(bytes) FROM files")
        return Extent(listed=count, videos=count, bytes=int(size))

    def match(self) -> tuple[Extent, dict[str, Any]]:
        """Find the file of each clip: its own, or else the one that it is cut from.

        Of several files with one name the first by its path counts, empty ones last.

        Returns:
            What was found, and the fields of `Ignored` that follow from it.
        """
        with _usable():
            others = "name NOT IN (SELECT key FROM clips) AND name NOT IN (SELECT part FROM clips)"
            some = self._db.execute(
                f"SELECT uri FROM listed WHERE {others} ORDER BY uri LIMIT ?",  # noqa: S608 - no values
                (MOST_NAMED,),
            ).fetchall()
            unannotated = self._db.execute(f"DELETE FROM listed WHERE {others}").rowcount  # noqa: S608
            files = self._one("SELECT COUNT(*) FROM listed")
            self._choose_files()
            self._db.execute(
                "UPDATE clips SET file = CASE WHEN key IN (SELECT name FROM files) THEN key "
                "WHEN part IN (SELECT name FROM files) THEN part END"
            )
            listed, videos, seconds, assumed, conflicting = self._row(
                "SELECT COUNT(*), COUNT(file), TOTAL(seconds) FILTER (WHERE file IS NOT NULL), "
                "COUNT(*) FILTER (WHERE file IS NOT NULL AND is_rate_assumed), "
                "COUNT(*) FILTER (WHERE is_conflicting) FROM clips"
            )
            size, kept = self._row(
                "SELECT TOTAL(bytes) FILTER (WHERE name IN (SELECT file FROM clips)), COUNT(*) FROM files"
            )
        return (
            Extent(listed=listed, videos=videos, bytes=int(size), seconds=seconds, rate_assumed=assumed),
            {
                "unannotated": unannotated,
                "unannotated_such_as": [uri for (uri,) in some],
                "duplicates": files - kept,
                "conflicting": conflicting,
            },
        )

    def missing(self, most: int | None = None) -> list[str]:
        """The keys of clips without a file, the first `most` of them."""
        with _usable():
            limit = -1 if most is None else most  # SQLite takes a negative one for none
            rows = self._db.execute("SELECT key FROM clips WHERE file IS NULL ORDER BY key LIMIT ?", (limit,))
            return [key for (key,) in rows]

    def files(self, name: str | None = None) -> Iterator[FoundFile]:
        """The videos after `take_all`, or the one of a name."""
        one = "" if name is None else "WHERE name = ?"
        with _usable():
            for row in self._db.execute(
                f"SELECT {_FILE} FROM files {one} ORDER BY name",  # noqa: S608 - no values
                () if name is None else (name,),
            ):
                yield _file(row)

    def videos(self, key: str | None = None) -> Iterator[tuple[AnnotatedClip, FoundFile, bool]]:
        """The clips with their files after `match`, by key, or one of them; and whether the file is its own."""
        one = "" if key is None else "WHERE key = ?"
        with _usable():
            for name, part, content, file, *row in self._db.execute(
                f"SELECT key, part, content, file, {_FILE} FROM clips "  # noqa: S608 - no values
                f"JOIN files ON files.name = clips.file {one} ORDER BY key",
                () if key is None else (key,),
            ):
                yield _clip(name, part, content), _file(row), file == name

    def _choose_files(self) -> None:
        self._db.execute("INSERT OR IGNORE INTO files SELECT * FROM listed ORDER BY name, bytes = 0, uri")
        self._db.execute("DELETE FROM listed")

    def _clip(self, key: str) -> AnnotatedClip:
        return _clip(key, *self._row("SELECT part, content FROM clips WHERE key = ?", key))

    def _row(self, query: str, *values: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query, values).fetchone()
        return row

    def _one(self, query: str, *values: str) -> int:
        (value,) = self._row(query, *values)
        return int(value)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SourceError(
            f"source.path: the list of its files does not fit into the temporary directory ({error}). Free some "
            "space there, or name another directory in the environment variable SQLITE_TMPDIR"
        ) from error


def _text(clip: AnnotatedClip) -> str:
    """What a clip holds besides `key` and `part`, as JSON, which gives back the same numbers."""
    attributes = [(attribute.name, attribute.value) for attribute in clip.attributes]
    spans = (clip.span_s, clip.frames, clip.box, clip.box_px)
    return json.dumps((clip.origin, spans, clip.frame_rate, clip.person, attributes))


def _clip(key: str, part: str, text: str) -> AnnotatedClip:
    origin, spans, frame_rate, person, attributes = json.loads(text)
    span_s, frames, box, box_px = (None if span is None else tuple(span) for span in spans)
    return AnnotatedClip(
        key=key,
        origin=origin,
        part=part,
        span_s=span_s,
        frames=frames,
        box=box,
        box_px=box_px,
        frame_rate=frame_rate,
        person=person,
        attributes=tuple(Attribute(name=name, value=value) for name, value in attributes),
    )


def _file(row: tuple[Any, ...] | list[Any]) -> FoundFile:
    uri, path, size, modified_ns, is_folder = row
    return FoundFile(uri, os.fsdecode(path), size, int(modified_ns), is_folder=bool(is_folder))
