"""One identity per person and video: joins the tracks of one person, such as those around a cutaway.

Two tracks that are seen in one frame are two people, whatever their likeness. Others are joined while every two
tracks of the group are alike (complete linkage), so that no chain of look-alikes joins two people.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from faces.types import Floats
from pipeline.stages.track import Track


def merge_tracks(tracks: list[Track], least_cosine: float) -> list[Track]:
    """The tracks of a video with those of one person joined, by their first frame.

    Args:
        tracks: each of one person.
        least_cosine: least likeness of any two tracks of a group.
    """
    means = [mean_embedding(track) for track in tracks]
    frames = [{seen.frame for seen in track.observations} for track in tracks]
    groups = [[number] for number in range(len(tracks))]

    def likeness(first: list[int], second: list[int]) -> float:
        """The least cosine between the tracks of two groups; -1 when they cannot be one person's."""
        least = 1.0
        for a in first:
            for b in second:
                one, other = means[a], means[b]
                if one is None or other is None or frames[a] & frames[b]:
                    return -1.0
                least = min(least, float(one @ other))
        return least

    while len(groups) > 1:
        # Of equal pairs the earliest, so that the result depends on nothing but the video.
        best, first, second = max(
            (likeness(groups[i], groups[j]), -i, -j) for i, j in combinations(range(len(groups)), 2)
        )
        if best < least_cosine:
            break
        groups[-first] += groups.pop(-second)
    return sorted(
        (_joined([tracks[number] for number in group]) for group in groups),
        key=lambda track: track.observations[0].frame,
    )


def mean_embedding(track: Track) -> Floats | None:
    """(D,) unit vector, mean of the track's anchors; None when it has none."""
    if not track.anchors:
        return None
    total = np.sum([seen.usable.face.embedding for seen in track.anchors if seen.usable is not None], axis=0)
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
