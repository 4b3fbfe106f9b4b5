"""Tracks whose right choice is known: bad frames of a far pose, and true extreme poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Selection
from pipeline.records import Candidate, CandidateTrack
from pipeline.rejection import Rejection
from pipeline.stages.choice import choose_images
from pipeline.stages.glitch import glitches
from pipeline.stages.select import FrameTable, Pick, candidates, pose_points, ranks
from shards.schema import Pose


@dataclass
class SyntheticTrack:
    """A head that turns slowly, and frames that do not belong to that.

    Attributes:
        pose_deg: (N, 3) yaw, pitch, roll.
        badness: (N,) quality, lower is better.
        marked: rows of the frames in question.
    """

    pose_deg: NDArray[np.float64]
    badness: NDArray[np.float64]
    marked: set[int]


def synthetic_track(rng: np.random.Generator, outliers: int, held: int) -> SyntheticTrack:
    """A track of 120 frames.

    Args:
        rng: makes it.
        outliers: single frames of a far pose and bad quality.
        held: frames of one true extreme pose, of ordinary quality.
    """
    frames = 120
    turn = np.cumsum(rng.normal(0, 1.2, (frames, 3)), axis=0)
    pose = 0.9 * (turn - turn.mean(axis=0)) + rng.normal(0, 0.4, (frames, 3))
    badness = rng.normal(40, 8, frames)
    reach = np.abs(pose[:, 0]).max()
    marked: set[int] = set()
    if outliers:
        marked = set(rng.choice(np.arange(3, frames - 3, 4), outliers, replace=False).tolist())
        for row in marked:
            direction = rng.normal(0, 1, 3)
            pose[row] += rng.uniform(25, 45) * direction / np.linalg.norm(direction)
            badness[row] += rng.uniform(20, 40)
    if held:
        start = int(rng.integers(4, frames - 4 - held))
        marked = set(range(start, start + held))
        for row in marked:
            pose[row, 0] = reach + 20 + rng.normal(0, 0.5)
    return SyntheticTrack(pose, badness, marked)


def chosen_of(track: SyntheticTrack, rng: np.random.Generator) -> set[int]:
    """Rows that the pipeline chooses of a synthetic track, scored as `pipeline.stages.score` does."""
    config = Selection()
    points = pose_points(track.pose_deg, config.roll_weight)
    kept = np.flatnonzero(~glitches(points, np.ones(len(points) - 1, dtype=bool)))
    sharpness = rng.normal(100, 10, len(points))
    table = FrameTable(track.pose_deg[kept], np.zeros(len(kept), dtype=bool))
    found = candidates(table, ranks(sharpness[kept]), config)
    if isinstance(found, Rejection):
        return set()
    made = CandidateTrack(
        track=0,
        embedding=[1.0],
        candidates=[
            _synthetic_candidate(track, int(kept[pick.row]), sharpness, pick) for pick in found.picks
        ],
    )

    def scored(some: CandidateTrack, clusters: set[int] | None) -> CandidateTrack:
        return some.model_copy(
            update={
                "candidates": [
                    c.model_copy(update={"quality": float(track.badness[c.frame])})
                    if (c.rank == 0 if clusters is None else c.cluster in clusters)
                    else c
                    for c in some.candidates
                ]
            }
        )

    made = scored(made, None)
    first = choose_images(made, config, higher_is_better=False)
    every = {c.cluster for c in made.candidates}
    chosen = every if isinstance(first, Rejection) else {made.candidates[row].cluster for row in first}
    made = scored(made, chosen)
    picked = choose_images(made, config, higher_is_better=False)
    return set() if isinstance(picked, Rejection) else {made.candidates[row].frame for row in picked}


def _synthetic_candidate(
    track: SyntheticTrack, row: int, sharpness: NDArray[np.float64], pick: Pick
) -> Candidate:
    yaw, pitch, roll = track.pose_deg[row]
    return Candidate(
        frame=row,
        time_s=row / 6,
        box_px=(0, 0, 1, 1),
        face_px=1,
        crop_px=(0, 0, 1),
        pose=Pose(yaw=yaw, pitch=pitch, roll=roll),
        keypoints_crop_px=[],
        eyes_open=1,
        sharpness=sharpness[row],
        identity_cosine=1,
        eyes_closed=False,
        cluster=pick.cluster,
        rank=pick.rank,
    )


def synthetic_figures(tracks: int = 300) -> list[str]:
    """How often bad outliers and true extremes of synthetic tracks are chosen."""
    rng = np.random.default_rng(0)
    bad = held = 0
    for _ in range(tracks):
        track = synthetic_track(rng, outliers=4, held=0)
        bad += len(track.marked & chosen_of(track, rng))
        track = synthetic_track(rng, outliers=0, held=2)
        held += bool(track.marked & chosen_of(track, rng))
    figures = f"bad outliers chosen {25 * bad / tracks:.1f} %, extreme poses {100 * held / tracks:.1f} %"
    return [f"  synthetic tracks   {figures} of {tracks}"]
