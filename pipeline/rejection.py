"""Why a video, a track or a frame is dropped; the stages return it in place of a result."""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import Reason


@dataclass(frozen=True)
class Rejection:
    """A reason, and the figures or the error behind it."""

    reason: Reason
    detail: str | None = None
