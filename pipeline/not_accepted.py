"""The list of what a build did not accept: written beside the report, and taken back by `mfhq build --retry`.

    <output>/report/not_accepted.tsv

One line for each failed or rejected video, and for each annotated clip that has no file (status `missing`). Plain
text, so that `grep`, a spreadsheet or a script can make a shorter list of it, which `--retry` takes as well.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.sources.manifest import one_line
from shards.atomic import open_atomic
from shards.schema import Status
from storage.path import AnyPath
from storage.scratch import scratch_folder

if TYPE_CHECKING:
    import pyarrow as pa

NOT_ACCEPTED = "not_accepted.tsv"
"""Name of the file, in the directory of the report."""
COLUMNS = ("status", "reason", "source", "video_id", "uri", "detail")
MISSING = "missing"
"""Status of an annotated clip without a file. It is no video, so no table of the dataset has it."""
LINES_COPIED = 8192
"""Lines that are copied at a time."""
NO_FILE = "the annotations list this clip, but no file has its name"

Missing = Mapping[str, Sequence[str]]
"""Source -> keys of its annotated clips that have no file."""


class ListError(ValueError):
    """A file is not a list of videos; the message names the line and the remedy."""


@dataclass(frozen=True)
class Entry:
    """A line of the list.

    Attributes:
        video_id: of the video.
        status: empty where the line has the id alone.
        source: likewise.
    """

    video_id: str
    status: str = ""
    source: str = ""


def write_not_accepted(path: AnyPath, videos: Iterable[pa.Table], missing: Missing) -> None:
    """Write the list, sorted by status and reason, within which the videos keep their order.

    The lines wait in a temporary file for those of other reasons; in memory are 12 bytes of each.

    Args:
        path: where to write.
        videos: the rows of the dataset's videos in batches, with all of `COLUMNS`, sorted by id.
        missing: clips without a file.

    Raises:
        OutOfSpace: the disk is full; an earlier file is unchanged.
    """
    with open_atomic(path) as file, _Unordered.beside(path) as lines:
        for batch in videos:
            lines.add(batch)
        file.write(_line(COLUMNS))
        lines.copy(Status.FAILED, file)
        for source, keys in sorted(missing.items()):
            file.writelines(
                _line((MISSING, "", source, f"{source}/{key}", "", NO_FILE)) for key in sorted(keys)
            )
        lines.copy(Status.REJECTED, file)


class _Unordered:
    """Lines in the order in which they came, to be copied by status and reason."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._number: dict[tuple[str, str], int] = {}  # status and reason
        self._groups, self._ends = array("i"), array("q", [0])

    @classmethod
    @contextmanager
    def beside(cls, path: AnyPath) -> Iterator[_Unordered]:
        """An empty one, in a file without a name on the disk of `path`."""
        folder = path.parent if isinstance(path, Path) else scratch_folder()
        with tempfile.TemporaryFile(dir=folder) as file:
            yield cls(file)

    def add(self, videos: pa.Table) -> None:
        """Take those that are not accepted."""
        import pyarrow.compute as pc

        rows = videos.select(COLUMNS).filter(pc.not_equal(videos["status"], Status.ACCEPTED.value))
        for row in rows.to_pylist():
            line = _line(row[column] for column in COLUMNS)
            group = (row["status"], row["reason"] or "")
            self._groups.append(self._number.setdefault(group, len(self._number)))
            self._ends.append(self._ends[-1] + len(line))
            self._file.write(line)

    def copy(self, status: Status, to: IO[bytes]) -> None:
        """Append the lines of a status to a file, by reason."""
        import numpy as np

        groups = sorted((reason, number) for (of, reason), number in self._number.items() if of == status)
        ranks = np.full(len(self._number), -1)
        ranks[[number for _, number in groups]] = range(len(groups))
        rank, ends = ranks[np.asarray(self._groups)], np.asarray(self._ends)
        lines = np.flatnonzero(rank >= 0)
        lines = lines[np.argsort(rank[lines], kind="stable")]
        # Neighbours are copied at once, though not all of a long file.
        for run in np.split(lines, np.flatnonzero(np.diff(lines) != 1) + 1):
            for part in np.split(run, range(LINES_COPIED, len(run), LINES_COPIED)):
                if len(part):
                    self._file.seek(ends[part[0]])
                    to.write(self._file.read(ends[part[-1] + 1] - ends[part[0]]))


def read_entries(path: AnyPath) -> Iterator[Entry]:
    """Read a list: the whole file, some of its lines with or without the first, or ids alone, one a line.

    Raises:
        ListError: the file is no such list.
        OSError: it cannot be read.
    """
    try:
        # The mark at the start is what spreadsheets on Windows write. Only "\n" ends a line, as it is written.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, text in enumerate(file, 1):
                line = text.rstrip("\r\n")
                if line and line not in (_HEADER, "video_id"):
                    yield _entry(line, number)
    except UnicodeDecodeError as error:
        raise ListError(f"not a text in UTF-8. Give {NOT_ACCEPTED}, or lines of it") from error


def missing_in(path: AnyPath) -> dict[str, list[str]]:
    """The clips without a file in a list that a build wrote, by source; empty when there is no list.

    Raises:
        ListError: the file is no such list.
        OSError: it cannot be read.
    """
    found: dict[str, list[str]] = {}
    if path.exists():
        for entry in read_entries(path):
            if entry.status == MISSING:
                found.setdefault(entry.source, []).append(entry.video_id.removeprefix(f"{entry.source}/"))
    return found


_HEADER = "\t".join(COLUMNS)
_WITHOUT_DETAIL = len(COLUMNS) - 1
"""Fields of a line whose last one is empty, in editors that remove white space from the ends of lines."""


def _entry(line: str, number: int) -> Entry:
    fields = line.split("\t")
    if len(fields) == 1:
        return Entry(line.strip())
    if len(fields) not in (_WITHOUT_DETAIL, len(COLUMNS)):
        raise ListError(
            f"line {number} has {len(fields)} columns. A line has the {len(COLUMNS)} columns of {NOT_ACCEPTED}, "
            "or a video_id alone"
        )
    of = dict(zip(COLUMNS, fields, strict=False))
    return Entry(of["video_id"], of["status"], of["source"])


def _line(cells: Iterable[str | None]) -> bytes:
    return ("\t".join(one_line(cell or "") for cell in cells) + "\n").encode()
