"""Lists the people below a directory or a URL, one sub-directory each, and their photographs.

Every file with the suffix of an image is listed, also one that cannot be read: it gets an outcome, not a gap. All
other files are counted.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.errors import BuildError
from pipeline.sources.folder import DANGLING, NOT_PERMITTED
from pipeline.sources.manifest import printable
from shards.digests import IMAGE_SUFFIXES, is_frame_name
from storage.path import AnyPath, ObjectPath

MOST_NAMED = 5
"""Suffixes that a message names."""


@dataclass(frozen=True, order=True)
class PhotographFile:
    """A photograph as it was listed.

    Attributes:
        name: as the file system has it.
        bytes: size of the file.
        modified_ns: time of change.
    """

    name: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Person:
    """A directory of photographs.

    Attributes:
        name: of the directory, printable.
        path: as the file system or the object store has it.
        files: sorted by the bytes of their names.
        unreadable: why the directory cannot be listed.
    """

    name: str
    path: AnyPath
    files: tuple[PhotographFile, ...] = ()
    unreadable: str | None = None

    @property
    def label(self) -> str:
        """The name, for messages."""
        return self.name

    @property
    def digest(self) -> str:
        """64 hex digits that change with the name of the person and with the list of the files."""
        listed = [(os.fsencode(file.name).hex(), file.bytes, file.modified_ns) for file in self.files]
        return hashlib.sha256(repr((self.name, self.unreadable, listed)).encode()).hexdigest()


@dataclass
class Listing:
    """What is below the source.

    Attributes:
        people: sorted by name.
        suffixes: other files, by the suffix of their names.
        nested: directories inside those of people, printable.
        beside: photographs that are in no person's directory.
    """

    people: list[Person] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    nested: list[str] = field(default_factory=list)
    beside: int = 0

    @property
    def photographs(self) -> int:
        """Number of all photographs."""
        return sum(len(person.files) for person in self.people)

    def messages(self) -> list[str]:
        """Sentences on what is ignored."""
        found = []
        if self.suffixes:
            named = ", ".join(f"{name}: {n}" for name, n in self.suffixes.most_common(MOST_NAMED))
            more = ", …" if len(self.suffixes) > MOST_NAMED else ""
            what = _counted(
                self.suffixes.total(), "file that is not a photograph", "files that are not photographs"
            )
            found.append(f"Ignored {what} ({named}{more}).")
        if self.beside:
            what = _counted(self.beside, "photograph that is", "photographs that are")
            found.append(f"Ignored {what} in no person's directory.")
        if self.nested:
            what = _counted(len(self.nested), "directory", "directories")
            found.append(f"Ignored {what} inside a person's directory, such as {self.nested[0]}.")
        return found


def list_people(root: AnyPath) -> Listing:
    """List the people below `root`.

    Directories and files whose names begin with a dot are not read. Links are followed.

    Raises:
        BuildError: `root` is no directory, cannot be listed, or has no directory of a person.
        StorageError: the object store cannot be listed.
    """
    if not root.is_dir():
        what = "is not a directory" if isinstance(root, Path) else "holds nothing"
        raise BuildError(f"source.path: {root} {what}. Pass the directory that contains one for each person.")
    listing = _list_objects(root) if isinstance(root, ObjectPath) else _list_directories(root)
    if not listing.people:
        raise BuildError(
            f"source.path: {root} contains no directory. Expected one for each person, with their photographs "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    listing.people.sort(key=lambda person: person.name)
    listing.nested.sort()
    return listing


def _list_directories(root: Path) -> Listing:
    listing = Listing()
    try:
        for entry in _entries(root):
            if _is_directory(entry):
                listing.people.append(_person(root / entry.name, listing))
            elif is_frame_name(entry.name):
                listing.beside += 1
            else:
                listing.suffixes[_suffix(entry.name)] += 1
    except OSError as error:
        raise BuildError(
            f"source.path: cannot read {printable(str(error.filename or root))}: {error.strerror}. Check that the "
            "storage is mounted and readable, then run the same command again."
        ) from error
    return listing


def _person(path: Path, listing: Listing) -> Person:
    files = []
    try:
        for entry in _entries(path):
            if _is_directory(entry):
                listing.nested.append(printable(f"{path.name}/{entry.name}"))
            elif is_frame_name(entry.name):
                files.append(PhotographFile(entry.name, *_size_and_time(entry)))
            else:
                listing.suffixes[_suffix(entry.name)] += 1
    except OSError as error:
        if error.errno not in NOT_PERMITTED:
            raise
        return Person(printable(path.name), path, unreadable=str(error.strerror))
    return Person(printable(path.name), path, tuple(sorted(files, key=_by_bytes)))


def _list_objects(root: ObjectPath) -> Listing:
    listing = Listing()
    found: dict[str, list[PhotographFile]] = {}
    nested: set[str] = set()
    for entry in root.entries():
        parts = PurePosixPath(entry.path).parts
        if entry.path.endswith("/") or any(part.startswith(".") for part in parts):
            continue
        if len(parts) > 1:
            found.setdefault(parts[0], [])
        if len(parts) > 2:
            nested.add(printable("/".join(parts[:2])))
        elif not is_frame_name(parts[-1]):
            listing.suffixes[_suffix(parts[-1])] += 1
        elif len(parts) == 1:
            listing.beside += 1
        else:
            found[parts[0]].append(PhotographFile(parts[1], entry.size, entry.modified_ns))
    listing.nested = list(nested)
    listing.people = [
        Person(printable(name), root / name, tuple(sorted(files, key=_by_bytes)))
        for name, files in found.items()
    ]
    return listing


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: it fails when it is opened
        return False


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Size in bytes and time of change in ns; of a link that leads nowhere, its own."""
    try:
        facts = entry.stat()
    except OSError as error:
        if error.errno not in DANGLING | NOT_PERMITTED:
            raise
        facts = entry.stat(follow_symlinks=False)
    return facts.st_size, facts.st_mtime_ns


def _by_bytes(file: PhotographFile) -> bytes:
    return os.fsencode(file.name)


def _suffix(name: str) -> str:
    return printable(PurePosixPath(name).suffix.lower()) or "no suffix"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
