"""Records what the analysis saw and decided, face by face, to explain the outcome of a video.

Nothing here affects a decision, and none of it enters the dataset.
"""

from __future__ import annotations

from pipeline.records import Analysis, Candidate, StagedIdentity, Timeline, TimelineFace
from pipeline.stages.observe import FaceObservation
from pipeline.stages.select import Pick
from pipeline.stages.track import Track
from pipeline.stages.track_filter import FilteredTrack, FilterResult
from shards.schema import Pose, Reason


def timeline_faces(
    number: int, track: Track, filtered: FilterResult, picks: list[Pick]
) -> list[TimelineFace]:
    """The faces of one track.

    Args:
        number: of the track in its video.
        track: all faces of one person.
        filtered: which of them are usable.
        picks: its candidates.
    """
    candidates: set[int] = set()
    if isinstance(filtered.result, FilteredTrack):
        candidates = {filtered.result.frames[pick.row].frame for pick in picks}
    return [
        _face(number, observation, filtered.outliers.get(observation.frame), observation.frame in candidates)
        for observation in track.observations
    ]


def settled_timeline(analysis: Analysis, identities: list[StagedIdentity]) -> Timeline:
    """The timeline of an analysis with the score and the outcome of each candidate."""
    candidates = {
        (track.track, candidate.frame): candidate
        for track in analysis.tracks
        for candidate in track.candidates
    }
    chosen = {(identity.track, image.frame) for identity in identities for image in identity.images}
    faces = [
        _settled(face, candidates[place], place in chosen)
        if (place := (face.track, face.frame)) in candidates
        else face
        for face in analysis.timeline.faces
    ]
    return analysis.timeline.model_copy(update={"faces": faces})


def _settled(face: TimelineFace, candidate: Candidate, chosen: bool) -> TimelineFace:
    reason = Reason.OTHER_IDENTITY if candidate.other_identity else face.reason
    return face.model_copy(update={"quality": candidate.quality, "chosen": chosen, "reason": reason})


def _face(track: int, seen: FaceObservation, outlier: str | None, candidate: bool) -> TimelineFace:
    pose, square, sharpness = seen.pose, seen.square, seen.sharpness
    x0, y0, x1, y1 = (round(float(value), 1) for value in seen.detection.box)
    return TimelineFace(
        frame=seen.frame,
        time_s=round(seen.time_s, 3),
        track=track,
        box_px=(x0, y0, x1, y1),
        face_px=round(seen.detection.face_px, 1),
        crop_px=(square.x0, square.y0, square.side) if square else None,
        pose=Pose(yaw=round(pose.yaw, 1), pitch=round(pose.pitch, 1), roll=round(pose.roll, 1))
        if pose
        else None,
        sharpness=None if sharpness is None else round(sharpness, 1),
        reason=outlier or seen.reason,
        candidate=candidate,
    )
