"""The last word on a video: choose eight images of each track and settle the outcome."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from pipeline.config import Config
from pipeline.records import Analysis, Candidate, CandidateTrack, StagedIdentity
from pipeline.stages.analyse import video_verdict
from pipeline.stages.probe import Refusal
from pipeline.stages.select import FrameTable, choose
from shards.schema import ImageRecord, Quality, Reason, Status, VideoOutcome


@dataclass(frozen=True)
class DecidedVideo:
    """A video's final outcome, with the images of each identity."""

    outcome: VideoOutcome
    identities: list[StagedIdentity]
    jpegs: list[list[bytes]]
    masks: list[list[bytes]]
    seconds: dict[str, float]


def decide(
    analysis: Analysis, jpegs: list[bytes], masks: list[bytes], config: Config, higher_is_better: bool
) -> DecidedVideo:
    """Turn scored candidates into identities, and the tracks that give none into reasons.

    Args:
        analysis: of one video, every candidate scored.
        jpegs: the candidates' images, track after track.
        masks: the candidates' face masks, likewise.
        config: of the build.
        higher_is_better: the direction of the metric.
    """
    identities: list[StagedIdentity] = []
    kept_jpegs: list[list[bytes]] = []
    kept_masks: list[list[bytes]] = []
    tracks = {track.track: track for track in analysis.outcome.tracks}
    start = 0
    for candidate_track in analysis.tracks:
        count = len(candidate_track.candidates)
        images, covers = jpegs[start : start + count], masks[start : start + count]
        start += count
        number = candidate_track.track
        chosen = _choose(candidate_track, config, higher_is_better)
        if isinstance(chosen, Refusal):
            update = {"reason": chosen.reason, "detail": chosen.detail}
        else:
            key = sample_key(analysis.outcome, number)
            update = {"key": key}
            identities.append(
                StagedIdentity(
                    key=key,
                    track=number,
                    track_start_s=tracks[number].start_s,
                    track_end_s=tracks[number].end_s,
                    embedder=config.models.embedder,
                    embedding=candidate_track.embedding,
                    images=[
                        _image_record(candidate_track.candidates[row], images[row], covers[row], config, higher_is_better)
                        for row in chosen
                    ],
                )
            )
            kept_jpegs.append([images[row] for row in chosen])
            kept_masks.append([covers[row] for row in chosen])
        tracks[number] = tracks[number].model_copy(update=update)
    outcome = _settled(analysis.outcome.model_copy(update={"tracks": list(tracks.values())}))
    return DecidedVideo(outcome, identities, kept_jpegs, kept_masks, analysis.seconds)


def sample_key(outcome: VideoOutcome, track: int) -> str:
    """Key of an identity: readable, unique, plain ASCII and without dots, whatever the file is called."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", outcome.uri.rpartition(".")[0]).strip("-")[:40].rstrip("-")
    digest = hashlib.sha256(outcome.video_id.encode()).hexdigest()[:10]
    return "_".join(part for part in (outcome.source, slug, digest, f"{track:02d}") if part)


def _choose(track: CandidateTrack, config: Config, higher_is_better: bool) -> list[int] | Refusal:
    """Rows of the chosen candidates, in time order."""
    sign = -1.0 if higher_is_better else 1.0
    badness = sign * np.array([candidate.quality for candidate in track.candidates], dtype=np.float64)
    worst = config.selection.worst_quality
    good = np.flatnonzero(badness <= (np.inf if worst is None else sign * worst))
    candidates = [track.candidates[row] for row in good]
    table = FrameTable(
        pose_deg=np.array([(c.pose.yaw, c.pose.pitch, c.pose.roll) for c in candidates]).reshape(-1, 3),
        eyes_open=np.array([c.eyes_open for c in candidates]),
        sharpness=np.array([c.sharpness for c in candidates]),
    )
    clusters = np.array([c.cluster for c in candidates], dtype=np.int64)
    chosen = choose(table, clusters, badness[good], config.selection)
    if not isinstance(chosen, Refusal):
        return [int(good[row]) for row in chosen]
    if len(good) < len(badness):
        detail = f"{len(good)} of {len(badness)} candidates reach selection.worst_quality={worst:g}"
        return Refusal(Reason.LOW_QUALITY, f"{detail}; {chosen.detail}")
    return chosen


def _image_record(
    candidate: Candidate, jpeg: bytes, mask: bytes, config: Config, higher_is_better: bool
) -> ImageRecord:
    assert candidate.quality is not None  # noqa: S101 - scored in the step before
    return ImageRecord(
        **candidate.model_dump(exclude={"keypoints_crop_px", "cluster", "quality"}),
        quality=Quality(
            metric=config.models.quality, value=candidate.quality, higher_is_better=higher_is_better
        ),
        sha256=hashlib.sha256(jpeg).hexdigest(),
        mask_sha256=hashlib.sha256(mask).hexdigest(),
    )


def _settled(outcome: VideoOutcome) -> VideoOutcome:
    if outcome.status is not Status.ACCEPTED:
        return outcome
    refusal = video_verdict(outcome.tracks)
    if refusal is None:
        identities = sum(track.key is not None for track in outcome.tracks)
        return outcome.model_copy(update={"identities": identities})
    return outcome.model_copy(
        update={
            "status": Status.REJECTED,
            "reason": refusal.reason,
            "detail": refusal.detail,
            "identities": 0,
        }
    )
