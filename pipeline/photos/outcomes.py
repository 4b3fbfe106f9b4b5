"""The outcome of each photograph, and the list of all of them.

    <output>/report/photographs.tsv

One line for each photograph, in the order of people and names, so that an image of the dataset can be traced to
its file and a file to its reason. Plain text: `grep -v ^used` shows what is not used.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.sources.manifest import one_line
from shards.atomic import open_atomic
from shards.schema import FAILURES, AnyReason, Reason, Record
from storage.path import AnyPath

COLUMNS = ("status", "reason", "person", "photograph", "frame", "key", "detail")
USED, SPARE, REJECTED, FAILED = "used", "spare", "rejected", "failed"
"""Statuses. `spare` is a usable photograph that is not needed to make identities of eight."""


class PhotographOutcome(Record):
    """The outcome of one photograph.

    Attributes:
        person: the directory.
        name: of the file.
        frame: place among the files of the person, by name.
        key: of the sample that holds it.
        reason: why none does; None for spare photographs.
        detail: the error or the figures behind the reason.
    """

    person: str
    name: str
    frame: int
    key: str | None = None
    reason: AnyReason | None = None
    detail: str | None = None

    @property
    def status(self) -> str:
        """One of `USED`, `SPARE`, `REJECTED`, `FAILED`."""
        if self.key is not None:
            return USED
        if self.reason is None:
            return SPARE
        return FAILED if self.reason in FAILURES else REJECTED


def write_list(path: AnyPath, photographs: Iterable[PhotographOutcome]) -> None:
    """Write the list.

    Args:
        path: where to write.
        photographs: in the order of their lines; taken one by one.

    Raises:
        OutOfSpace: the disk is full; an earlier file is unchanged.
    """
    with open_atomic(path) as file:
        file.write(_line(COLUMNS))
        for each in photographs:
            reason = Reason(each.reason).value if each.reason is not None else ""
            cells = (each.status, reason, each.person, each.name, str(each.frame), each.key, each.detail)
            file.write(_line(cells))


def _line(cells: Iterable[str | None]) -> bytes:
    return ("\t".join(one_line(cell or "") for cell in cells) + "\n").encode()
