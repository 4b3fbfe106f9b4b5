"""The outcome of a video some of whose identities are not taken into the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.rejection import Rejection
from shards.schema import Reason, Status, TrackOutcome, VideoOutcome

AFTER_CURATION = (Reason.DUPLICATE_VIDEO, Reason.NEAR_DUPLICATE, Reason.DUPLICATE_PERSON)
"""Reasons that no staged outcome has: they are found when all videos are curated, in every build."""


def without(outcome: VideoOutcome, rejections: Mapping[str, Rejection]) -> VideoOutcome:
    """The outcome without the identities that are rejected; a video that keeps none has the reason of its first.

    Args:
        outcome: of a video.
        rejections: by key of the identity.
    """
    found: list[Rejection] = []
    tracks: list[TrackOutcome] = []
    for track in outcome.tracks:
        rejection = None if track.key is None else rejections.get(track.key)
        if rejection is None:
            tracks.append(track)
            continue
        found.append(rejection)
        update = {"key": None, "reason": rejection.reason, "detail": rejection.detail}
        tracks.append(track.model_copy(update=update))
    if not found:
        return outcome
    left = outcome.identities - len(found)
    changed: dict[str, Any] = {"tracks": tracks, "identities": left}
    if not left:
        changed |= {"status": Status.REJECTED, "reason": found[0].reason, "detail": found[0].detail}
    return outcome.model_copy(update=changed)
