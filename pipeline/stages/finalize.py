"""Decides the final outcome of a video: chooses eight images of each track."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.config import Config
from pipeline.records import (
    Analysis,
    Candidate,
    CandidateImage,
    CandidateTrack,
    StagedIdentity,
    StagedSample,
    Timeline,
)
from pipeline.rejection import Rejection
from pipeline.stages.choice import choose_images
from pipeline.stages.outcome import video_rejection
from pipeline.stages.timeline import settled_timeline
from shards.canonical import sha256_hex
from shards.landmarks import LANDMARKS, encode_landmarks
from shards.schema import ImageRecord, Quality, Reason, Status, TrackOutcome, VideoOutcome


@dataclass(frozen=True)
class FinalizedVideo:
    """A video's final outcome, with the images of each identity."""

    outcome: VideoOutcome
    samples: list[StagedSample]
    seconds: dict[str, float]
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def identities(self) -> list[StagedIdentity]:
        """Records of the samples."""
        return [sample.identity for sample in self.samples]


def finalize(
    analysis: Analysis, images: list[CandidateImage], config: Config, higher_is_better: bool
) -> FinalizedVideo:
    """Turn scored candidates into identities, and tracks without an identity into reasons.

    Args:
        analysis: of one video, its candidates scored; those without a score are not chosen.
        images: the candidates' files, track after track.
        config: of the build.
        higher_is_better: the direction of the metric.
    """
    samples: list[StagedSample] = []
    analysis = _without_others(analysis)
    tracks = {track.track: track for track in analysis.outcome.tracks}
    start = 0
    for candidates in analysis.tracks:
        rows = slice(start, start := start + len(candidates.candidates))
        outcome = tracks[candidates.track]
        chosen = choose_images(candidates, config.selection, higher_is_better)
        if isinstance(chosen, Rejection):
            update = {"reason": chosen.reason, "detail": chosen.detail}
        else:
            files = [images[rows][row] for row in chosen]
            records = [
                _image_record(candidates.candidates[row], image, config, higher_is_better)
                for row, image in zip(chosen, files, strict=True)
            ]
            key = sample_key(analysis.outcome, candidates.track)
            update = {"key": key}
            pairs = list(zip(records, files, strict=True))
            samples.append(_sample(key, outcome, candidates, pairs, config))
        tracks[candidates.track] = outcome.model_copy(update=update)
    settled = _settled(analysis.outcome.model_copy(update={"tracks": list(tracks.values())}))
    timeline = settled_timeline(analysis, [sample.identity for sample in samples])
    return FinalizedVideo(settled, samples, analysis.seconds, timeline)


def _without_others(analysis: Analysis) -> Analysis:
    """The analysis with its counts corrected for candidates that turned out to show another identity."""
    others = {track.track: sum(c.other_identity for c in track.candidates) for track in analysis.tracks}
    if not any(others.values()):
        return analysis
    outcome = analysis.outcome
    reasons = Counter(outcome.frame_reasons) + Counter({Reason.OTHER_IDENTITY.value: sum(others.values())})
    tracks = [
        track.model_copy(update={"usable_frames": track.usable_frames - others.get(track.track, 0)})
        for track in outcome.tracks
    ]
    update = {"frame_reasons": dict(sorted(reasons.items())), "tracks": tracks}
    return analysis.model_copy(update={"outcome": outcome.model_copy(update=update)})


def _sample(
    key: str,
    track: TrackOutcome,
    candidates: CandidateTrack,
    images: list[tuple[ImageRecord, CandidateImage]],
    config: Config,
) -> StagedSample:
    records, files = zip(*images, strict=True)
    landmarks = encode_landmarks(
        [np.frombuffer(image.points, "<f4").reshape(LANDMARKS, 2) for image in files]
    )
    identity = StagedIdentity(
        key=key,
        track=track.track,
        track_start_s=track.start_s,
        track_end_s=track.end_s,
        embedder=config.models.embedder,
        embedding=candidates.embedding,
        images=list(records),
        landmarks_sha256=sha256_hex(landmarks),
        seen_with=candidates.seen_with,
        fingerprint=candidates.fingerprint,
        image_bytes=candidates.image_bytes,
    )
    return StagedSample(
        identity, tuple(image.jpeg for image in files), tuple(image.mask for image in files), landmarks
    )


def mark_failed(analysis: Analysis, error: Exception) -> Analysis:
    """The analysis of a video that failed after it: no candidates, and the error as its reason."""
    detail = f"{type(error).__name__}: {error}"
    tracks = [
        track
        if track.reason is not None
        else track.model_copy(update={"reason": Reason.INTERNAL_ERROR, "detail": detail})
        for track in analysis.outcome.tracks
    ]
    update = {
        "status": Status.FAILED,
        "reason": Reason.INTERNAL_ERROR,
        "detail": detail,
        "tracks": tracks,
        "identities": 0,
    }
    outcome = analysis.outcome.model_copy(update=update)
    return analysis.model_copy(update={"outcome": outcome, "tracks": []})


class Named(Protocol):
    """The parts of a video's name in a key."""

    @property
    def video_id(self) -> str:
        """Unique within the build."""
        ...

    @property
    def source(self) -> str:
        """Name of the source dataset."""
        ...

    @property
    def uri(self) -> str:
        """Path relative to the source's root."""
        ...


def sample_key(video: Named, track: int) -> str:
    """Key of an identity: readable, unique, plain ASCII and without dots, for any file name."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", video.uri.rpartition(".")[0]).strip("-")[:34].rstrip("-")
    digest = hashlib.sha256(video.video_id.encode()).hexdigest()[:16]
    return "_".join(part for part in (video.source, slug, digest, f"{track:02d}") if part)


def _image_record(
    candidate: Candidate, image: CandidateImage, config: Config, higher_is_better: bool
) -> ImageRecord:
    # Both are known since the step before.
    assert candidate.quality is not None  # noqa: S101
    assert candidate.identity_cosine is not None  # noqa: S101
    return ImageRecord(
        **candidate.model_dump(include=set(ImageRecord.model_fields) - {"quality"}),
        quality=Quality(
            metric=config.models.quality, value=candidate.quality, higher_is_better=higher_is_better
        ),
        sha256=sha256_hex(image.jpeg),
        mask_sha256=sha256_hex(image.mask),
    )


def _settled(outcome: VideoOutcome) -> VideoOutcome:
    if outcome.status is not Status.ACCEPTED:
        return outcome
    rejection = video_rejection(outcome.tracks)
    if rejection is None:
        identities = sum(track.key is not None for track in outcome.tracks)
        return outcome.model_copy(update={"identities": identities})
    return outcome.model_copy(
        update={
            "status": Status.REJECTED,
            "reason": rejection.reason,
            "detail": rejection.detail,
            "identities": 0,
        }
    )
