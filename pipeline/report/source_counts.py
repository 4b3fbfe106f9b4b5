"""What each source dataset has given: counted over the videos table, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.not_accepted import Missing
from pipeline.report.hashed import Hashes, hashes, joined
from pipeline.report.outcomes import footage_s
from shards.schema import Status


@dataclass(frozen=True)
class SourceRow:
    """The part of one source dataset; `missing` are annotated clips without a file, which are no videos."""

    source: str
    videos: int
    accepted: int
    rejected: int
    failed: int
    missing: int
    hours: float
    gigabytes: float
    identities: int
    persons: int
    licenses: tuple[str, ...]


@dataclass
class SourceCounts:
    """The videos of one source that have come; `add` takes more.

    Of each file, 16 bytes are kept: a source may list several parts of one file, whose size counts once.
    """

    source: str
    videos: int = 0
    status: Counter[str] = field(default_factory=Counter)
    footage_s: float = 0.0
    identities: int = 0
    licenses: set[str] = field(default_factory=set)
    _files: list[Hashes] = field(default_factory=list)
    _bytes: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = field(default_factory=list)

    def add(self, videos: pa.Table) -> None:
        """Take videos of this source."""
        self.videos += len(videos)
        self.status.update(videos["status"].to_pylist())
        self.footage_s += sum(footage_s(videos))
        self.identities += pc.sum(videos["identities"]).as_py() or 0
        self.licenses |= {terms or "" for terms in pc.unique(videos["license"]).to_pylist()}
        self._files.append(hashes(videos["uri"].to_pylist()))
        self._bytes.append(videos["bytes"].to_numpy().astype(np.int64))

    def row(self, persons: int, missing: int) -> SourceRow:
        """The row of the page.

        Args:
            persons: of this source.
            missing: its clips without a file.
        """
        _, last = np.unique(joined(self._files)[::-1], return_index=True)
        sizes = np.concatenate(self._bytes)[::-1][last]
        return SourceRow(
            source=self.source,
            videos=self.videos,
            accepted=self.status[Status.ACCEPTED],
            rejected=self.status[Status.REJECTED],
            failed=self.status[Status.FAILED],
            missing=missing,
            hours=self.footage_s / 3600,
            gigabytes=int(sizes.sum()) / 1e9,
            identities=self.identities,
            persons=persons,
            licenses=tuple(sorted(self.licenses)),
        )


class AllSources:
    """The counts of every source."""

    def __init__(self) -> None:
        self._of: dict[str, SourceCounts] = {}

    def add(self, videos: pa.Table) -> None:
        """Take videos of any source."""
        for source in pc.unique(videos["source"]).to_pylist():
            counts = self._of.setdefault(source, SourceCounts(source))
            counts.add(videos.filter(pc.equal(videos["source"], source)))

    def rows(self, persons: Mapping[str, int], missing: Missing) -> list[SourceRow]:
        """One row a source, the largest first."""
        rows = [
            counts.row(persons.get(source, 0), len(missing.get(source, ())))
            for source, counts in self._of.items()
        ]
        return sorted(rows, key=lambda row: (-row.videos, row.source))
