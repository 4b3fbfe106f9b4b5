"""Why a video, a track or a frame goes no further; returned by the stages in place of a result."""

from __future__ import annotations

from dataclasses import dataclass

from shards.schema import Reason


@dataclass(frozen=True)
class Rejection:
    """A reason, and the figures or the error behind it."""

    reason: Reason
    detail: str | None = None
