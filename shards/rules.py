"""What must hold between the records of a data set, in one place for the writer and the verifier."""

from __future__ import annotations

from collections import Counter

from shards.canonical import model_json
from shards.schema import FAILURES, IdentityRecord, Status, VideoOutcome


def video_problems(video: VideoOutcome) -> list[str]:
    """Sentences on what contradicts itself within one video's outcome; empty when all is well."""
    problems = []
    try:
        model_json(video)
    except ValueError:
        problems.append("holds NaN or an infinity")
    if (video.reason is None) != (video.status == Status.ACCEPTED):
        problems.append(f"status {video.status} with reason {video.reason}: a reason is set iff not accepted")
    if video.reason is not None and video.status != Status.ACCEPTED:
        expected = Status.FAILED if video.reason in FAILURES else Status.REJECTED
        if video.status != expected:
            problems.append(f"reason {video.reason} belongs to status {expected}, not {video.status}")
    if (video.identities > 0) != (video.status == Status.ACCEPTED):
        problems.append(f"status {video.status} with {video.identities} identities")
    keys = [track.key for track in video.tracks if track.key is not None]
    if len(keys) != video.identities:
        problems.append(f"{video.identities} identities, but {len(keys)} of its tracks name a sample")
    problems += [
        f"track {track.track}: exactly one of key and reason must be set"
        for track in video.tracks
        if (track.key is None) == (track.reason is None)
    ]
    problems += [
        f"track {number} occurs {times} times"
        for number, times in Counter(track.track for track in video.tracks).items()
        if times > 1
    ]
    return problems


def sample_problems(record: IdentityRecord, video: VideoOutcome) -> list[str]:
    """Sentences on what contradicts itself between a sample and its video's outcome."""
    problems = [
        f"{name} is {getattr(record, name)!r} in the sample and {getattr(video, name)!r} in {video.video_id}"
        for name in ("source", "origin", "licence")
        if getattr(record, name) != getattr(video, name)
    ]
    if record.key not in {track.key for track in video.tracks if track.track == record.track}:
        problems.append(f"track {record.track} of {video.video_id} does not name it as its sample")
    return problems
