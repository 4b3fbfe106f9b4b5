"""The outcomes of videos, tracks and faces: counts over the videos table that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.not_accepted import Missing
from pipeline.report.reasons import FUNNEL_STEPS, order
from shards.schema import Reason, Status


@dataclass(frozen=True)
class Gate:
    """One line of the funnel: `left` = the line above - `lost`, and `lost` = the sum of `reasons`."""

    name: str
    passed: str
    lost: int
    left: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Balance:
    """A total with its parts: `total` = `kept` + the sum of `lost` + `unaccounted`."""

    total: int
    kept: int
    lost: dict[str, int]

    @property
    def unaccounted(self) -> int:
        """What no reason explains; 0 in a dataset without contradictions."""
        return self.total - self.kept - sum(self.lost.values())


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


def funnel(videos: pa.Table) -> list[Gate]:
    """The gates of the pipeline with the videos that each stopped; the last one's `left` are the accepted."""
    counts = _counts(videos["reason"])
    left = len(videos)
    gates = []
    for stage in FUNNEL_STEPS:
        found = {reason.value: counts.pop(reason.value, 0) for reason in stage.reasons}
        gates.append(_gate(stage.name, stage.passed, left, found))
        left = gates[-1].left
    if counts:
        gates.append(_gate("other reasons", "No reason that this version does not know", left, counts))
    return gates


def track_balance(videos: pa.Table) -> Balance:
    """Tracks: how many became an identity and why the others did not."""
    tracks = _tracks(videos)
    reasons = _counts(tracks.field("reason"))
    return Balance(len(tracks), pc.sum(pc.is_valid(tracks.field("key"))).as_py() or 0, _ordered(reasons))


def frame_balance(videos: pa.Table) -> Balance:
    """Analysed frames: how many were sound and how many were dropped as corrupt."""
    analysed, corrupt = (pc.sum(videos[name]).as_py() or 0 for name in ("analysed_frames", "corrupt_frames"))
    return Balance(analysed, analysed - corrupt, {Reason.CORRUPT_FRAME.value: corrupt} if corrupt else {})


def face_balance(videos: pa.Table) -> Balance:
    """Faces in analysed frames: how many could have been chosen and why the others were dropped."""
    dropped = videos["frame_reasons"].combine_chunks()
    table = pa.table({"reason": dropped.keys.cast(pa.string()), "count": dropped.items})
    sums = table.group_by("reason").aggregate([("count", "sum")]).to_pylist()
    seen = pc.sum(videos["faces_seen"]).as_py() or 0
    usable = pc.sum(_tracks(videos).field("usable_frames")).as_py() or 0
    return Balance(seen, usable, _ordered({row["reason"]: row["count_sum"] for row in sums}))


def by_source(videos: pa.Table, images: pa.Table, missing: Missing) -> list[SourceRow]:
    """One row a source, the largest first."""
    of_persons = images.group_by("source").aggregate([("person_id", "count_distinct")])
    persons = dict(
        zip(
            *(
                column.to_pylist()
                for column in of_persons.select(["source", "person_id_count_distinct"]).columns
            ),
            strict=True,
        )
    )
    rows = []
    for source in pc.unique(videos["source"]).to_pylist():
        part = videos.filter(pc.equal(videos["source"], source))
        status = Counter(part["status"].to_pylist())
        licenses = {terms or "" for terms in pc.unique(part["license"]).to_pylist()}
        rows.append(
            SourceRow(
                source=source,
                videos=len(part),
                accepted=status[Status.ACCEPTED],
                rejected=status[Status.REJECTED],
                failed=status[Status.FAILED],
                missing=len(missing.get(source, ())),
                hours=footage_s(part) / 3600,
                gigabytes=sum(
                    dict(zip(*(part[c].to_pylist() for c in ("uri", "bytes")), strict=True)).values()
                )
                / 1e9,
                identities=pc.sum(part["identities"]).as_py() or 0,
                persons=persons.get(source, 0),
                licenses=tuple(sorted(licenses)),
            )
        )
    return sorted(rows, key=lambda row: (-row.videos, row.source))


def footage_s(videos: pa.Table) -> float:
    """Seconds of all videos: of a part of a file, only that part counts."""
    spans, lengths = videos["span_s"].to_pylist(), videos["duration_s"].to_pylist()
    return sum(
        min(span[1], length) - span[0] if span is not None and length is not None else length or 0.0
        for span, length in zip(spans, lengths, strict=True)
    )


def unaccepted(videos: pa.Table, limit: int) -> tuple[pa.Table, int]:
    """Videos without an identity, in the order of their reasons, and how many there are in all.

    Where there are more than `limit`, each reason keeps its first ones, so that a common reason does not crowd
    out a rare one.
    """
    lost = videos.filter(pc.is_valid(videos["reason"]))
    reasons = lost["reason"].to_pylist()
    seen: Counter[str] = Counter()
    ranks = np.zeros(len(lost), dtype=np.int64)
    for row, reason in enumerate(reasons):
        ranks[row] = seen[reason]
        seen[reason] += 1
    kept = np.sort(np.argsort(ranks, kind="stable")[:limit])
    rows = sorted(kept.tolist(), key=lambda row: (order(reasons[row]), row))
    return lost.take(pa.array(rows, pa.int64())), len(lost)


def _gate(name: str, passed: str, before: int, reasons: Mapping[str, int]) -> Gate:
    lost = sum(reasons.values())
    return Gate(name, passed, lost, before - lost, {reason: n for reason, n in reasons.items() if n})


def _tracks(videos: pa.Table) -> pa.StructArray:
    return pc.list_flatten(videos["tracks"].combine_chunks())


def _counts(reasons: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    pairs = pc.value_counts(reasons).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs if pair["values"] is not None}


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts[reason] for reason in sorted(counts, key=order) if counts[reason]}
