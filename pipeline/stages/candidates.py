"""Turns the measurements of a track's frames into the records of its candidates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from faces.mask import encode_mask_png, face_mask
from faces.types import Floats
from pipeline.config import Selection
from pipeline.records import Candidate, CandidateImage, CandidateTrack
from pipeline.stages.fingerprint import fingerprint
from pipeline.stages.select import FrameTable, Pick, are_closed
from pipeline.stages.track_filter import FilteredTrack, anchors
from shards.schema import IMAGE_SIDE, Pose

POINT_DIGITS = 1
"""Points are rounded to this, in pixels: finer than the landmarker, coarser than rounding errors."""


def frame_table(track: FilteredTrack, selection: Selection) -> FrameTable:
    """The measurements of all usable frames of a track that the choice needs."""
    poses = [face.landmarks.pose for face in track.faces]
    eyes_open = np.array([face.landmarks.eyes_open for face in track.faces])
    return FrameTable(
        pose_deg=np.array([(pose.yaw, pose.pitch, pose.roll) for pose in poses]),
        eyes_closed=are_closed(eyes_open, selection),
    )


def candidate_track(
    number: int, track: FilteredTrack, picks: list[Pick], selection: Selection, seen_with: Iterable[int] = ()
) -> CandidateTrack:
    """The record of a track with enough usable frames.

    Args:
        number: of the track in its video.
        track: its usable frames.
        picks: its candidates.
        selection: when eyes count as closed.
        seen_with: numbers of the tracks that are seen in a frame with it.
    """
    closed = frame_table(track, selection).eyes_closed
    embeddings = np.stack([face.face.embedding for face in anchors(track.faces)])
    mean = embeddings.mean(axis=0)
    mean /= np.linalg.norm(mean)
    return CandidateTrack(
        track=number,
        embedding=_rounded(mean, 5),
        fingerprint=fingerprint([frame.time_s for frame in track.frames], track.faces),
        seen_with=sorted(seen_with),
        image_bytes=float(np.median([len(face.jpeg) for face in track.faces])),
        candidates=[_candidate(track, pick, bool(closed[pick.row]), mean) for pick in picks],
    )


def candidate_image(track: FilteredTrack, row: int) -> CandidateImage:
    """The files of a frame that may be chosen."""
    face = track.faces[row]
    points = face.square.to_crop(face.landmarks.points)
    return CandidateImage(
        jpeg=face.jpeg,
        mask=encode_mask_png(face_mask(points, IMAGE_SIDE)),
        points=np.round(points, POINT_DIGITS).astype("<f4").tobytes(),
    )


def _candidate(track: FilteredTrack, pick: Pick, eyes_closed: bool, mean: Floats) -> Candidate:
    frame, face = track.frames[pick.row], track.faces[pick.row]
    pose, square = face.landmarks.pose, face.square
    x0, y0, x1, y1 = _rounded(frame.detection.box, 1)
    return Candidate(
        frame=frame.frame,
        time_s=round(frame.time_s, 3),
        box_px=(x0, y0, x1, y1),
        face_px=round(frame.detection.face_px, 1),
        crop_px=(square.x0, square.y0, square.side),
        pose=Pose(yaw=round(pose.yaw, 2), pitch=round(pose.pitch, 2), roll=round(pose.roll, 2)),
        keypoints_crop_px=_points(square.to_crop(frame.detection.keypoints)),
        eyes_open=round(face.landmarks.eyes_open, 3),
        sharpness=round(face.sharpness, 2),
        identity_cosine=round(float(face.face.embedding @ mean), 4) if face.face.is_embedded else None,
        continuous=bool(track.continuous[pick.row]),
        eyes_closed=eyes_closed,
        cluster=pick.cluster,
        rank=pick.rank,
    )


def _rounded(values: Iterable[float], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _points(points: Floats) -> list[tuple[float, float]]:
    return [(round(float(x), POINT_DIGITS), round(float(y), POINT_DIGITS)) for x, y in points]
