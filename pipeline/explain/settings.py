"""Which configuration keys decide on a reason, so that a reader sees the gate beside what it dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.records import Timeline
from shards.schema import VideoOutcome

KEYS: dict[str, tuple[str, ...]] = {
    "face_too_small": ("faces.min_px",),
    "crop_too_small": ("faces.min_crop_px",),
    "extreme_pose": ("faces.max_yaw", "faces.max_pitch", "faces.max_roll"),
    "too_dark": ("faces.min_brightness",),
    "noisy": ("faces.max_noise",),
    "blurred": ("faces.min_sharpness", "faces.min_relative_sharpness"),
    "pose_outlier": ("tracking.max_gap_s", "frames.per_second"),
    "other_identity": ("tracking.min_outlier_cosine", "tracking.merge_cosine"),
    "track_too_short": ("tracking.max_gap_s", "frames.per_second"),
    "too_few_poses": ("selection.min_separation_deg", "selection.clusters", "selection.roll_weight"),
    "low_quality": ("selection.worst_quality",),
    "no_face": ("faces.min_score", "faces.min_crop_px", "faces.detection_side"),
    "timeout": ("run.video_timeout_s",),
    "out_of_memory": ("run.video_memory_gb",),
    "duplicate_person": ("people.link_cosine", "people.same_origin_cosine", "people.keep"),
}


def deciding_settings(
    outcome: VideoOutcome, timeline: Timeline, value_of: Callable[[str], Any]
) -> dict[str, Any]:
    """The keys behind the reasons of a video, its tracks and its faces, with their values.

    Args:
        outcome: of the video.
        timeline: its frames and faces.
        value_of: the value of a key, None when it is not known or not set.
    """
    reasons = [
        outcome.reason,
        *(track.reason for track in outcome.tracks),
        *outcome.frame_reasons,
        *(face.reason for face in timeline.faces),
    ]
    keys = dict.fromkeys(key for reason in reasons if reason for key in KEYS.get(str(reason), ()))
    return {key: value for key in keys if (value := value_of(key)) is not None}
