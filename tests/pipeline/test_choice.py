"""The choice among scored candidates: by the ranks of quality and sharpness, of those that have a score."""

from __future__ import annotations

from test_finalize import turning

from pipeline.config import Selection
from pipeline.records import CandidateTrack
from pipeline.rejection import Rejection
from pipeline.stages.choice import choose_images


def scored(qualities: list[float | None], sharpness: list[float]) -> CandidateTrack:
    """A track that turns, a cluster for each candidate."""
    track = turning(0)
    candidates = [
        candidate.model_copy(update={"quality": quality, "sharpness": sharp, "cluster": row})
        for row, (candidate, quality, sharp) in enumerate(
            zip(track.candidates, qualities, sharpness, strict=False)
        )
    ]
    return track.model_copy(update={"candidates": candidates})


def test_of_equal_quality_the_sharper_is_chosen_unless_sharpness_has_no_weight() -> None:
    sharpness = [100.0 if row % 2 else 50.0 for row in range(20)]
    track = scored([20.0] * 20, sharpness)
    sharper = choose_images(track, Selection(min_separation_deg=0), higher_is_better=False)
    assert isinstance(sharper, list)
    alone = Selection(min_separation_deg=0, sharpness_weight=0)
    by_quality = choose_images(track, alone, higher_is_better=False)
    assert isinstance(by_quality, list)
    assert sum(row % 2 for row in sharper) > sum(row % 2 for row in by_quality)


def test_candidates_without_a_score_are_not_chosen() -> None:
    track = scored([None if row % 2 else 20.0 for row in range(20)], [100.0] * 20)
    chosen = choose_images(track, Selection(min_separation_deg=0), higher_is_better=True)
    assert isinstance(chosen, list)
    assert all(row % 2 == 0 for row in chosen)


def test_no_score_at_all_is_a_rejection() -> None:
    rejected = choose_images(scored([None] * 20, [100.0] * 20), Selection(), higher_is_better=True)
    assert isinstance(rejected, Rejection)
