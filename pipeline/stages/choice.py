"""Chooses among the scored candidates of a track."""

from __future__ import annotations

import numpy as np

from pipeline.config import Selection
from pipeline.records import CandidateTrack
from pipeline.rejection import Rejection
from pipeline.stages.select import FrameTable, choose, ranks
from shards.schema import Reason


def choose_images(track: CandidateTrack, config: Selection, higher_is_better: bool) -> list[int] | Rejection:
    """Rows of the eight chosen candidates, in time order.

    Candidates are compared by their ranks in quality and, weighted, in sharpness: perceptual metrics alone hardly
    prefer the sharper of two frames of one video.

    Args:
        track: its candidates; those without a score, and those of another identity, are not chosen.
        config: of the choice.
        higher_is_better: the direction of the metric.
    """
    sign = -1.0 if higher_is_better else 1.0
    scored = [
        row
        for row, candidate in enumerate(track.candidates)
        if candidate.quality is not None and not candidate.other_identity
    ]
    badness = sign * np.array([track.candidates[row].quality for row in scored], dtype=np.float64)
    worst = config.worst_quality
    good = np.flatnonzero(badness <= (np.inf if worst is None else sign * worst))
    candidates = [track.candidates[scored[row]] for row in good]
    table = FrameTable(
        pose_deg=np.array([(c.pose.yaw, c.pose.pitch, c.pose.roll) for c in candidates]).reshape(-1, 3),
        eyes_closed=np.array([c.eyes_closed for c in candidates], dtype=bool),
    )
    clusters = np.array([c.cluster for c in candidates], dtype=np.int64)
    sharpness = np.array([c.sharpness for c in candidates])
    order = ranks(badness[good]) + config.sharpness_weight * ranks(-sharpness)
    chosen = choose(table, clusters, order, config)
    if isinstance(chosen, Rejection) and any(c.rank > 0 for c in candidates):
        # The choice among the first of each cluster, which decided what else was scored, may have succeeded.
        first = [c if c.rank == 0 else c.model_copy(update={"quality": None}) for c in track.candidates]
        again = choose_images(track.model_copy(update={"candidates": first}), config, higher_is_better)
        if not isinstance(again, Rejection):
            return again
    others = sum(candidate.other_identity for candidate in track.candidates)
    if isinstance(chosen, Rejection) and others:
        detail = f"{others} of {len(track.candidates)} candidates show another identity; {chosen.detail}"
        return Rejection(Reason.OTHER_IDENTITY, detail)
    if not isinstance(chosen, Rejection):
        return [scored[good[row]] for row in chosen]
    if len(good) < len(badness):
        detail = f"{len(good)} of {len(badness)} candidates reach selection.worst_quality={worst:g}"
        return Rejection(Reason.LOW_QUALITY, f"{detail}; {chosen.detail}")
    return chosen
