"""What the report shows of the videos: counted in one pass over their table, batch by batch."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report import outcomes
from pipeline.report.gate_table import GateTable, annotated_sizes, gate_table
from pipeline.report.hashed import Hashes, contains, hashes, joined
from pipeline.report.outcomes import Balance, footage_s
from pipeline.report.reasons import order
from pipeline.report.source_counts import AllSources
from shards.layout import VIDEOS
from shards.streamed import StreamedDataset
from shards.tables import VIDEOS_SCHEMA

UNACCEPTED_ROWS = 500
_SHOWN = ("video_id", "uri", "source", "status", "reason", "detail", "width", "height", "duration_s")
COLUMNS = (
    *(*_SHOWN, "license", "bytes", "span_s", "analysed_frames", "corrupt_frames", "faces_seen"),
    *("frame_reasons", "tracks", "identities", "annotated_box"),
)


@dataclass(frozen=True)
class VideoCounts:
    """What the page shows of the videos.

    Attributes:
        videos: number of them.
        reasons: reason -> videos without an identity.
        tracks: all of them.
        frames: that were analysed.
        faces: in these frames.
        gates: identities by the resolution gate.
        sources: the part of each.
        lost: rows of some videos without an identity, in the order of their reasons.
        timed_s: length of the videos of the timings.
        uris: of the videos that were asked for, by id.
    """

    videos: int
    reasons: Counter[str]
    tracks: Balance
    frames: Balance
    faces: Balance
    gates: GateTable
    sources: AllSources
    lost: list[dict[str, Any]]
    timed_s: float
    uris: dict[str, str]


def video_ids(dataset: StreamedDataset) -> Hashes:
    """(V,) sorted hashes of the ids of all videos.

    Raises:
        DatasetError: the videos table does not follow the format.
    """
    batches = dataset.batches(VIDEOS, ("video_id",))
    ordered: Hashes = np.sort(joined(hashes(batch["video_id"].to_pylist()) for batch in batches))
    return ordered


def count_videos(dataset: StreamedDataset, timed: Hashes, named: Collection[str]) -> VideoCounts:
    """Read the videos table.

    Args:
        dataset: of any size.
        timed: sorted hashes of the ids of videos whose time is known.
        named: ids of videos whose names are wanted.

    Raises:
        DatasetError: the table does not follow the format.
    """
    count, timed_s = 0, 0.0
    reasons: Counter[str] = Counter()
    nothing = VIDEOS_SCHEMA.empty_table()
    tracks, frames, faces = _balances(nothing)
    gates = gate_table(nothing)
    sources, lost = AllSources(), FirstOfEachReason(UNACCEPTED_ROWS)
    uris: dict[str, str] = {}
    wanted = pa.array(sorted(named), pa.string())
    for batch in dataset.batches(VIDEOS, COLUMNS):
        count += len(batch)
        reasons += outcomes.reasons(batch)
        more = _balances(batch)
        tracks, frames, faces = tracks + more[0], frames + more[1], faces + more[2]
        gates += gate_table(batch, annotated_sizes(batch))
        sources.add(batch)
        lost.add(batch.select(_SHOWN))
        known = contains(timed, hashes(batch["video_id"].to_pylist()))
        timed_s += sum(footage_s(batch.filter(pa.array(known))))
        names = batch.filter(pc.is_in(batch["video_id"], wanted))
        uris |= dict(zip(names["video_id"].to_pylist(), names["uri"].to_pylist(), strict=True))
    return VideoCounts(
        videos=count,
        reasons=reasons,
        tracks=tracks,
        frames=frames,
        faces=faces,
        gates=gates,
        sources=sources,
        lost=lost.rows(),
        timed_s=timed_s,
        uris=uris,
    )


class FirstOfEachReason:
    """Keeps some of the videos without an identity.

    Where there are more than the limit, each reason keeps its first ones, so that a common reason does not crowd
    out a rare one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: Counter[str] = Counter()
        self._count = 0
        # The place within its reason decides, then that in the table; negated, so that the last one is on top.
        self._kept: list[tuple[int, int, dict[str, Any]]] = []

    def add(self, videos: pa.Table) -> None:
        """Take videos, in the order of the table."""
        for row in videos.filter(pc.is_valid(videos["reason"])).to_pylist():
            entry = (-self._seen[row["reason"]], -self._count, row)
            self._seen[row["reason"]] += 1
            self._count += 1
            if len(self._kept) < self._limit:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def rows(self) -> list[dict[str, Any]]:
        """Those that were kept, in the order of their reasons."""
        ordered = sorted(self._kept, key=lambda entry: (order(entry[2]["reason"]), -entry[1]))
        return [row for _, _, row in ordered]


def _balances(videos: pa.Table) -> tuple[Balance, Balance, Balance]:
    """Tracks, frames and faces."""
    return outcomes.track_balance(videos), outcomes.frame_balance(videos), outcomes.face_balance(videos)
