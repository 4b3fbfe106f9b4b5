"""The outcomes of videos, tracks and faces: counts over rows of the videos table that add up.

A table is read in batches: what the functions say of each batch is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.reasons import FUNNEL_STEPS, order
from shards.schema import Reason


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

    def __add__(self, other: Balance) -> Balance:
        """The balance of both together."""
        lost = Counter(self.lost) + Counter(other.lost)
        return Balance(self.total + other.total, self.kept + other.kept, _ordered(lost))


def reasons(videos: pa.Table) -> Counter[str]:
    """How many videos have each reason."""
    return _counts(videos["reason"])


def funnel(videos: int, reasons: Mapping[str, int]) -> list[Gate]:
    """The gates of the pipeline with the videos that each stopped; the last one's `left` are the accepted.

    Args:
        videos: number of all.
        reasons: reason -> videos that have it.
    """
    counts = dict(reasons)
    left = videos
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
    # Keys and items of a map that is a slice of another are those of the whole.
    start, end = (dropped.offsets[0].as_py(), dropped.offsets[-1].as_py()) if len(dropped) else (0, 0)
    keys, items = (part.slice(start, end - start) for part in (dropped.keys, dropped.items))
    table = pa.table({"reason": keys.cast(pa.string()), "count": items})
    sums = table.group_by("reason").aggregate([("count", "sum")]).to_pylist()
    seen = pc.sum(videos["faces_seen"]).as_py() or 0
    usable = pc.sum(_tracks(videos).field("usable_frames")).as_py() or 0
    return Balance(seen, usable, _ordered({row["reason"]: row["count_sum"] for row in sums}))


def footage_s(videos: pa.Table) -> list[float]:
    """Seconds of each video, 0 where unknown: of a part of a file, only that part counts."""
    spans, lengths = videos["span_s"].to_pylist(), videos["duration_s"].to_pylist()
    return [
        min(span[1], length) - span[0] if span is not None and length is not None else length or 0.0
        for span, length in zip(spans, lengths, strict=True)
    ]


def _gate(name: str, passed: str, before: int, reasons: Mapping[str, int]) -> Gate:
    lost = sum(reasons.values())
    return Gate(name, passed, lost, before - lost, {reason: n for reason, n in reasons.items() if n})


def _tracks(videos: pa.Table) -> pa.StructArray:
    return pc.list_flatten(videos["tracks"].combine_chunks())


def _counts(reasons: pa.Array | pa.ChunkedArray) -> Counter[str]:
    pairs = pc.value_counts(reasons).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs if pair["values"] is not None})


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts[reason] for reason in sorted(counts, key=order) if counts[reason]}
