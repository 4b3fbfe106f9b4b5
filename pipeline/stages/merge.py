"""One identity per person and video: joins the tracks of one person, such as those around a cutaway.

Two tracks that are seen in one frame are two people, whatever their cosines. Others are joined while every two
tracks of the group are alike (complete linkage), so that no chain of look-alikes joins two people.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np

from faces.types import Floats
from pipeline.stages.track import Track
from pipeline.stages.track_filter import anchors


def merge_tracks(tracks: list[Track], least_cosine: float) -> list[Track]:
    """The tracks of a video with those of one person joined, by their first frame.

    Args:
        tracks: each of one person.
        least_cosine: least cosines of any two tracks of a group.
    """
    known = [(track, mean) for track in tracks if (mean := mean_embedding(track)) is not None]
    alone = [track for track in tracks if not track.anchors]
    groups = [[track] for track, _ in known]
    cosines = _cosines([mean for _, mean in known], [track for track, _ in known])
    while len(groups) > 1:
        # Of equal pairs the earliest, so that the result depends on nothing but the video.
        first, second = (int(place) for place in np.unravel_index(cosines.argmax(), cosines.shape))
        if cosines[first, second] < least_cosine:
            break
        first, second = min(first, second), max(first, second)
        groups[first] += groups.pop(second)
        least = np.minimum(cosines[first], cosines[second])
        least[first] = -np.inf
        cosines[first], cosines[:, first] = least, least
        cosines = np.delete(np.delete(cosines, second, axis=0), second, axis=1)
    joined = [*alone, *(_joined(group) for group in groups)]
    return sorted(joined, key=lambda track: track.observations[0].frame)


def seen_together(tracks: list[Track]) -> list[set[int]]:
    """Of each of N tracks, the places of those that are seen in a frame with it."""
    in_frame: dict[int, list[int]] = defaultdict(list)
    for place, track in enumerate(tracks):
        for seen in track.observations:
            in_frame[seen.frame].append(place)
    together: list[set[int]] = [set() for _ in tracks]
    for places in in_frame.values():
        for place in places:
            together[place].update(places)
    return [others - {place} for place, others in enumerate(together)]


def _cosines(means: list[Floats], tracks: list[Track]) -> Floats:
    """(N, N) cosine of every two tracks; -inf where they cannot be one person's, and of each with itself."""
    frames = [{seen.frame for seen in track.observations} for track in tracks]
    if not means:
        return np.zeros((0, 0), np.float32)
    cosines = np.stack(means) @ np.stack(means).T
    for a, b in combinations(range(len(means)), 2):
        if frames[a] & frames[b]:
            cosines[a, b] = cosines[b, a] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    found: Floats = cosines
    return found


def mean_embedding(track: Track) -> Floats | None:
    """(D,) unit vector, mean of the track's anchors, without profiles if others are; None when it has none."""
    faces = anchors([seen.usable for seen in track.anchors if seen.usable is not None])
    if not faces:
        return None
    total = np.sum([face.face.embedding for face in faces], axis=0)
    mean: Floats = total / np.linalg.norm(total)
    return mean


def _joined(tracks: list[Track]) -> Track:
    if len(tracks) == 1:
        return tracks[0]
    joined = Track()
    joined.observations = sorted(
        (seen for track in tracks for seen in track.observations), key=lambda seen: seen.frame
    )
    joined.anchors = sorted((seen for track in tracks for seen in track.anchors), key=lambda seen: seen.frame)
    return joined
