"""Selects the frames of a track that may be chosen, and rejects tracks with too few."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.types import Floats
from pipeline.config import Faces, Tracking
from pipeline.rejection import Rejection
from pipeline.stages.gate import GATES_PX
from pipeline.stages.observe import FaceObservation, UsableFace
from pipeline.stages.track import Track
from shards.schema import IMAGES_PER_IDENTITY, Reason


@dataclass(frozen=True)
class FilteredTrack:
    """The frames of one person that may be chosen.

    Attributes:
        frames: observations in time order.
        faces: what was measured on each of them.
        embedding: (D,) unit vector, mean over the frames.
        cosines: (N,) likeness of each frame to it.
    """

    frames: list[FaceObservation]
    faces: list[UsableFace]
    embedding: Floats
    cosines: Floats


@dataclass(frozen=True)
class FilterResult:
    """A track's usable frames, or why there are too few, and the frames dropped by reason."""

    result: FilteredTrack | Rejection
    usable_frames: int
    dropped: dict[Reason, int]
    outliers: dict[int, Reason]
    """Frame -> reason, of the usable faces that stood out from their track."""


def filter_track(track: Track, faces: Faces, tracking: Tracking) -> FilterResult:
    """Drop the frames that differ from their track, then check whether enough are left.

    A frame is dropped when it is blurred compared with the others, or when its face is unlike the medoid:
    another person, or a face that neither a person nor a network could recognise.
    """
    dropped = Counter(o.reason for o in track.observations if o.reason is not None)
    frames = [o for o in track.observations if o.usable is not None]
    usable = [o.usable for o in frames if o.usable is not None]
    keep = relatively_sharp(np.array([face.sharpness for face in usable]), faces.min_relative_sharpness)
    dropped[Reason.BLURRED] += int((~keep).sum())
    outliers = {o.frame: Reason.BLURRED for o in _where(frames, ~keep)}
    frames, usable = _where(frames, keep), _where(usable, keep)
    if usable:
        embeddings = np.stack([face.embedding for face in usable])
        keep = near_medoid(embeddings, tracking.min_outlier_cosine)
        dropped[Reason.OTHER_IDENTITY] += int((~keep).sum())
        outliers |= {o.frame: Reason.OTHER_IDENTITY for o in _where(frames, ~keep)}
        frames, usable, embeddings = _where(frames, keep), _where(usable, keep), embeddings[keep]
    reasons = {reason: count for reason, count in sorted(dropped.items()) if count}
    if len(usable) < IMAGES_PER_IDENTITY:
        return FilterResult(_too_few(track, len(usable), reasons, faces), len(usable), reasons, outliers)
    mean = embeddings.mean(axis=0)
    mean /= np.linalg.norm(mean)
    kept = FilteredTrack(frames, usable, mean, embeddings @ mean)
    return FilterResult(kept, len(usable), reasons, outliers)


def relatively_sharp(sharpness: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """(N,) whether each frame is at least `least` times as sharp as the median frame."""
    if len(sharpness) == 0:
        return np.zeros(0, dtype=bool)
    kept: NDArray[np.bool_] = sharpness >= least * np.median(sharpness)
    return kept


def near_medoid(embeddings: Floats, least_cosine: float) -> NDArray[np.bool_]:
    """(N,) whether each unit vector of (N, D) is near the one that is nearest to all others."""
    cosines = embeddings @ embeddings.T
    kept: NDArray[np.bool_] = cosines[int(cosines.sum(axis=1).argmax())] >= least_cosine
    return kept


def _too_few(track: Track, usable: int, dropped: dict[Reason, int], faces: Faces) -> Rejection:
    """The reason that cost the most frames, if none are left or enough would be left without it."""
    detail = f"{usable} usable frames, {IMAGES_PER_IDENTITY} needed"
    if dropped:
        worst = max(dropped, key=lambda reason: dropped[reason])
        if usable == 0 or usable + dropped[worst] >= IMAGES_PER_IDENTITY:
            sizes = _sizes([seen for seen in track.observations if seen.reason is worst], worst, faces)
            return Rejection(worst, f"{detail}; {dropped[worst]} dropped for this{sizes}")
    return Rejection(Reason.TRACK_TOO_SHORT, detail)


def _sizes(dropped: list[FaceObservation], reason: Reason, faces: Faces) -> str:
    """The size of the faces that a resolution gate dropped, and the gate."""
    # Rounded down, so that no size reads as one that passes.
    largest = math.floor(max((seen.detection.face_px for seen in dropped), default=0.0))
    if reason is Reason.FACE_TOO_SMALL:
        return f": faces of at most {largest} px, faces.min_px={faces.min_px:g}"
    if reason is not Reason.CROP_TOO_SMALL:
        return ""
    gate = f"faces.min_crop_px={faces.min_crop_px:g}"
    crops = [seen.crop_px for seen in dropped if seen.crop_px is not None]
    if crops:
        return f": head crops of at most {max(crops)} px, {gate}"
    least = min(faces.min_crop_px, *GATES_PX)
    return f": faces of at most {largest} px, head crops below {least:g} px, {gate}"


def _where(items: list, keep: NDArray[np.bool_]) -> list:  # type: ignore[type-arg]
    return [item for item, kept in zip(items, keep, strict=True) if kept]
