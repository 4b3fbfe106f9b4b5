"""The list of what a build did not accept: written beside the report, and taken back by `mfhq build --retry`.

    <output>/report/not_accepted.tsv

One line for each failed or rejected video, and for each annotated clip that has no file (status `missing`). Plain
text, so that `grep`, a spreadsheet or a script can make a shorter list of it, which `--retry` takes as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.sources.manifest import one_line
from shards.atomic import open_atomic
from shards.schema import Status
from storage.path import AnyPath

if TYPE_CHECKING:
    import pyarrow as pa

NOT_ACCEPTED = "not_accepted.tsv"
"""Name of the file, in the directory of the report."""
COLUMNS = ("status", "reason", "source", "video_id", "uri", "detail")
MISSING = "missing"
"""Status of an annotated clip without a file. It is no video, so no table of the dataset has it."""
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


def write_not_accepted(path: AnyPath, videos: pa.Table, missing: Missing) -> None:
    """Write the list, sorted by status, reason and id.

    Args:
        path: where to write.
        videos: the dataset's videos, with all of `COLUMNS`.
        missing: clips without a file.

    Raises:
        OutOfSpace: the disk is full; an earlier file is unchanged.
    """
    with open_atomic(path) as file:
        file.write(_line(COLUMNS))
        file.writelines(_lines_of(videos, Status.FAILED))
        for source, keys in sorted(missing.items()):
            file.writelines(
                _line((MISSING, "", source, f"{source}/{key}", "", NO_FILE)) for key in sorted(keys)
            )
        file.writelines(_lines_of(videos, Status.REJECTED))


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


def _lines_of(videos: pa.Table, status: Status) -> Iterator[bytes]:
    import pyarrow.compute as pc

    rows = videos.select(COLUMNS).filter(pc.equal(videos["status"], status.value))
    ordered = rows.sort_by([("reason", "ascending"), ("video_id", "ascending")])
    for batch in ordered.to_batches(max_chunksize=8192):
        yield from (_line(row[column] for column in COLUMNS) for row in batch.to_pylist())


def _line(cells: Iterable[str | None]) -> bytes:
    return ("\t".join(one_line(cell or "") for cell in cells) + "\n").encode()
