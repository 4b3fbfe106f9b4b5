"""Checks between the records of a dataset, in one place for the writer and the verifier."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

from shards.canonical import model_json
from shards.schema import FAILURES, FromSource, IdentityRecord, Reason, Status, VideoOutcome

UNIT_TOLERANCE = 1e-3
"""Largest deviation of an embedding's length from 1, for embeddings stored with few digits."""
KNOWN_REASONS = frozenset(reason.value for reason in Reason)
"""Any other reason is valid with either status: the list of reasons is open, and readers count by `status`."""


def validate_video(video: VideoOutcome) -> list[str]:
    """Sentences on contradictions within one video's outcome; empty when there are none."""
    errors = []
    try:
        model_json(video)
    except ValueError:
        errors.append("holds NaN or an infinity")
    if (video.reason is None) != (video.status == Status.ACCEPTED):
        errors.append(f"status {video.status} with reason {video.reason}: a reason is set iff not accepted")
    if video.reason in KNOWN_REASONS and video.status != Status.ACCEPTED:
        expected = Status.FAILED if video.reason in FAILURES else Status.REJECTED
        if video.status != expected:
            errors.append(f"reason {video.reason} belongs to status {expected}, not {video.status}")
    if (video.identities > 0) != (video.status == Status.ACCEPTED):
        errors.append(f"status {video.status} with {video.identities} identities")
    keys = [track.key for track in video.tracks if track.key is not None]
    if len(keys) != video.identities:
        errors.append(f"{video.identities} identities, but {len(keys)} of its tracks name a sample")
    errors += [
        f"track {track.track}: exactly one of key and reason must be set"
        for track in video.tracks
        if (track.key is None) == (track.reason is None)
    ]
    errors += _validate_source(video)
    errors += [
        f"track {number} occurs {times} times"
        for number, times in Counter(track.track for track in video.tracks).items()
        if times > 1
    ]
    return errors


def validate_record(record: IdentityRecord) -> list[str]:
    """Sentences on contradictions within one sample's record."""
    errors = []
    if any(before.frame >= after.frame for before, after in pairwise(record.images)):
        errors.append("its images are not in ascending order of their source frames")
    if any(image.crop_px[2] <= 0 for image in record.images):
        errors.append("the side of a crop is not positive")
    embedded = [
        record.embedder is not None,
        record.embedding is not None,
        *(image.identity_cosine is not None for image in record.images),
    ]
    if any(embedded) != all(embedded):
        errors.append("only some of embedder, embedding and identity_cosine are null")
    if record.embedding is not None and abs(math.hypot(*record.embedding) - 1) > UNIT_TOLERANCE:
        errors.append(f"its embedding has length {math.hypot(*record.embedding):.4f}, not 1")
    errors += _validate_source(record)
    if record.track_end_s < record.track_start_s:
        errors.append("its track ends before it starts")
    return errors


def validate_sample(record: IdentityRecord, video: VideoOutcome) -> list[str]:
    """Sentences on contradictions between a sample and its video's outcome."""
    errors = [
        f"{name} is {getattr(record, name)!r} in the sample and {getattr(video, name)!r} in {video.video_id}"
        for name in FromSource.model_fields
        if getattr(record, name) != getattr(video, name)
    ]
    if record.key not in {track.key for track in video.tracks if track.track == record.track}:
        errors.append(f"track {record.track} of {video.video_id} does not name it as its sample")
    return errors


def _validate_source(record: FromSource) -> list[str]:
    errors = []
    names = [attribute.name for attribute in record.attributes]
    if names != sorted(set(names)):
        errors.append("its attributes are not sorted by name, each name once")
    if record.span_s is not None and not 0 <= record.span_s[0] < record.span_s[1]:
        errors.append(f"its span is {record.span_s[0]:g} to {record.span_s[1]:g} s")
    if record.annotated_box is not None:
        x0, y0, x1, y1 = record.annotated_box
        if not (x0 < x1 and y0 < y1):
            errors.append("its annotated box is empty")
    return errors
