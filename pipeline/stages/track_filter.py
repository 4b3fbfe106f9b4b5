"""Selects the frames of a track that may be chosen, and rejects tracks with too few."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from faces.types import Floats
from pipeline.config import Faces, Tracking
from pipeline.rejection import Rejection
from pipeline.stages.gate import GATES_PX
from pipeline.stages.glitch import NEIGHBOUR_S, glitches
from pipeline.stages.observe import FaceObservation, UsableFace
from pipeline.stages.select import pose_points
from pipeline.stages.track import Track, intersection_over_union
from shards.schema import IMAGES_PER_IDENTITY, Reason

PROFILE_DEG = 45.0
"""Yaw beyond which recognition networks lose the likeness of one person; the continuity of the track decides."""
CONTINUOUS_OVERLAP = 0.5
"""Least overlap of a profile's box with that of the frame before or after it."""


@dataclass(frozen=True)
class FilteredTrack:
    """The frames of one person that may be chosen.

    Attributes:
        frames: observations in time order.
        faces: what was measured on each of them.
        medoid: (D,) the embedding that is nearest to those of all anchors.
        continuous: (N,) whether the frame before or after it in the track shows the face at the same place.
        certain: (N,) whether it is the track's person without being embedded: the nearest embedded faces before
            and after it are, where there are such. Where place and picture leave a doubt, the tracker embeds.
    """

    frames: list[FaceObservation]
    faces: list[UsableFace]
    medoid: Floats
    continuous: NDArray[np.bool_]
    certain: NDArray[np.bool_]

    def is_same_person(self, row: int, least_cosine: float) -> bool:
        """Whether a frame shows the track's person; embeds its face unless its continuity decides."""
        face = self.faces[row]
        if self.certain[row]:
            return True
        if self.continuous[row] and abs(face.landmarks.pose.yaw) > PROFILE_DEG:
            return True
        return float(face.face.embedding @ self.medoid) >= least_cosine


@dataclass(frozen=True)
class FilterResult:
    """A track's usable frames, or why there are too few, and the frames dropped by reason."""

    result: FilteredTrack | Rejection
    usable_frames: int
    dropped: dict[Reason, int]
    outliers: dict[int, Reason]
    """Frame -> reason, of the usable faces that stood out from their track."""


def filter_track(track: Track, faces: Faces, tracking: Tracking, roll_weight: float) -> FilterResult:
    """Drop the frames that differ from their track, then check whether enough are left.

    A frame is dropped when it is blurred compared with the others, when its pose is a glitch, or when its face is
    embedded and unlike the medoid: another person, or a face that neither a person nor a network could
    recognise.

    Args:
        track: of one person.
        faces: what a usable face is.
        tracking: least likeness, and the gap beyond which frames are no neighbours.
        roll_weight: of the pose distance.
    """
    dropped = Counter(o.reason for o in track.observations if o.reason is not None)
    outliers: dict[int, Reason] = {}
    frames = [o for o in track.observations if o.usable is not None]

    def drop(reason: Reason, keep: NDArray[np.bool_]) -> None:
        nonlocal frames
        dropped[reason] += int((~keep).sum())
        outliers.update({o.frame: reason for o in _where(frames, ~keep)})
        frames = _where(frames, keep)

    sharpness = np.array([o.usable.sharpness for o in frames if o.usable is not None])
    drop(Reason.BLURRED, relatively_sharp(sharpness, faces.min_relative_sharpness))
    poses = np.array([(o.pose.yaw, o.pose.pitch, o.pose.roll) for o in frames if o.pose is not None])
    points = pose_points(poses.reshape(-1, 3), roll_weight)
    drop(Reason.POSE_OUTLIER, ~glitches(points, stays(frames, min(NEIGHBOUR_S, tracking.max_gap_s))))
    kept: FilteredTrack | None = None
    if frames:
        usable = [o.usable for o in frames if o.usable is not None]
        medoid = medoid_of(np.stack([face.face.embedding for face in anchors(usable)]))
        embedded = np.array([face.face.is_embedded for face in usable])
        doubtful = np.zeros(len(usable), dtype=bool)
        kept = FilteredTrack(
            frames, usable, medoid, is_continuous(frames, tracking.max_gap_s), certain=doubtful
        )
        same = np.array(
            [
                not face.face.is_embedded or kept.is_same_person(row, tracking.min_outlier_cosine)
                for row, face in enumerate(usable)
            ]
        )
        certain = between_known(embedded, same)
        drop(Reason.OTHER_IDENTITY, same)
        kept = FilteredTrack(
            frames,
            _where(usable, same),
            medoid,
            is_continuous(frames, tracking.max_gap_s),
            certain[same],
        )
    reasons = {reason: count for reason, count in sorted(dropped.items()) if count}
    if kept is None or len(frames) < IMAGES_PER_IDENTITY:
        return FilterResult(too_few(track, len(frames), reasons, faces), len(frames), reasons, outliers)
    return FilterResult(kept, len(frames), reasons, outliers)


def without(verdict: FilterResult, rows: list[int]) -> FilterResult:
    """The verdict when these rows of its usable frames turn out to show another identity."""
    track = verdict.result
    if not rows or isinstance(track, Rejection):
        return verdict
    keep = ~np.isin(np.arange(len(track.frames)), rows)
    dropped = Counter(verdict.dropped)
    dropped[Reason.OTHER_IDENTITY] += len(rows)
    others = {track.frames[row].frame: Reason.OTHER_IDENTITY for row in rows}
    left = FilteredTrack(
        _where(track.frames, keep),
        _where(track.faces, keep),
        track.medoid,
        track.continuous[keep],
        track.certain[keep],
    )
    return FilterResult(left, len(left.frames), dict(sorted(dropped.items())), verdict.outliers | others)


def between_known(embedded: NDArray[np.bool_], same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether each frame is not embedded, and lies between two that are and show the track's person.

    Before the first and after the last embedded frame, one is enough.

    Args:
        embedded: (N,) whether the face is embedded, in time order.
        same: (N,) whether it is the track's person, as far as it is embedded.
    """
    known = np.flatnonzero(embedded)
    if len(known) == 0:
        return np.zeros(len(embedded), dtype=bool)
    after = np.searchsorted(known, np.arange(len(embedded)))
    next_known = known[np.minimum(after, len(known) - 1)]
    last_known = known[np.maximum(after - 1, 0)]
    between: NDArray[np.bool_] = ~embedded & same[next_known] & same[last_known]
    return between


def anchors(faces: list[UsableFace]) -> list[UsableFace]:
    """The faces that a track is compared with: those embedded, not profiles if others are; at least one."""
    embedded = [face for face in faces if face.face.is_embedded] or faces[:1]
    frontal = [face for face in embedded if abs(face.landmarks.pose.yaw) <= PROFILE_DEG]
    return frontal or embedded


def is_continuous(frames: list[FaceObservation], max_gap_s: float) -> NDArray[np.bool_]:
    """(N,) whether the frame before or after each shows the face at the same place."""
    joined = stays(frames, max_gap_s)
    either: NDArray[np.bool_] = np.append(False, joined) | np.append(joined, False)
    return either if frames else np.zeros(0, dtype=bool)


def stays(frames: list[FaceObservation], most_s: float) -> NDArray[np.bool_]:
    """(N - 1,) whether each frame and the next show the face at the same place, at most so many seconds apart."""
    return np.array(
        [
            after.time_s - before.time_s <= most_s
            and intersection_over_union(before.detection.box, after.detection.box) >= CONTINUOUS_OVERLAP
            for before, after in pairwise(frames)
        ],
        dtype=bool,
    )


def relatively_sharp(sharpness: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """(N,) whether each frame is at least `least` times as sharp as the median frame."""
    if len(sharpness) == 0:
        return np.zeros(0, dtype=bool)
    kept: NDArray[np.bool_] = sharpness >= least * np.median(sharpness)
    return kept


def medoid_of(embeddings: Floats) -> Floats:
    """The one of (N, D) unit vectors that is nearest to all others, (D,)."""
    medoid: Floats = embeddings[int((embeddings @ embeddings.T).sum(axis=1).argmax())]
    return medoid


def too_few(track: Track, usable: int, dropped: dict[Reason, int], faces: Faces) -> Rejection:
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
