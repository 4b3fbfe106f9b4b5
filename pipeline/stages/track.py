"""Join the faces of consecutive frames to tracks of one person.

A track ends when its face is unseen for too long, when another person's face is at its position, and at a
shot cut, unless the face after the cut is clearly the same person's: a flash looks like two cuts. So two
people do not share a track where they swap positions or where a cut was not seen.

A face that stays where it was and looks as it did continues its track without an embedding. Embeddings decide
everywhere else; a track has them at its anchors, two seconds apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from faces.resize import reduced
from faces.types import Floats, Image
from pipeline.config import Tracking
from pipeline.stages.observe import FaceObservation

FORBIDDEN = 1e6
"""Cost of a pair that may not be joined."""
ANCHOR_EVERY_S = 2.0
"""Seconds between the faces of a track that are embedded."""
SURE_OVERLAP = 0.5
SURE_SIMILARITY = 0.85
"""A face that overlaps its predecessor and looks like it by this much is taken for the same. Pictures of one face
a sixth of a second apart have a median of .95 on real clips; of pairs of faces from different clips .5 % reach it,
those of one person among them. Chosen images are embedded in any case, and profiles alone are not judged by it."""


@dataclass
class Track:
    """The observations of one person, in time order."""

    observations: list[FaceObservation] = field(default_factory=list)
    severed: bool = False
    """Whether there is a cut between its newest observation and now."""
    anchors: list[FaceObservation] = field(default_factory=list)
    """Observations that are embedded."""
    _embedding_sum: Floats | None = None

    def add(self, observation: FaceObservation) -> None:
        """Append the newest observation."""
        self.observations.append(observation)
        self.severed = False
        usable = observation.usable
        if usable is None:
            return
        due = not self.anchors or observation.time_s >= self.anchors[-1].time_s + ANCHOR_EVERY_S
        if due or usable.face.is_embedded:
            self.anchors.append(observation)
            embedding = usable.face.embedding
            self._embedding_sum = (
                embedding if self._embedding_sum is None else self._embedding_sum + embedding
            )

    @property
    def last(self) -> FaceObservation:
        """The newest observation."""
        return self.observations[-1]

    def cosine(self, observation: FaceObservation) -> float | None:
        """Likeness of a face to this track's person; None when either is not usable."""
        if self._embedding_sum is None or observation.usable is None:
            return None
        norm = float(np.linalg.norm(self._embedding_sum))
        return float(self._embedding_sum @ observation.usable.face.embedding) / norm


class ShotCuts:
    """Sees where the shot changes, from the colours of consecutive analysed frames."""

    def __init__(self, distance: float) -> None:
        self._distance = distance
        self._last: Floats | None = None

    def is_cut(self, image: Image) -> bool:
        """Whether a shot ends between the last frame given and this one."""
        small = reduced(image, 64, 64)
        hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
        histogram = cv2.calcHist([hsv], [0, 1, 2], None, [12, 6, 6], [0, 180, 0, 256, 0, 256])
        histogram = cv2.GaussianBlur(histogram.reshape(12, 36), (3, 3), 0)
        last, self._last = self._last, histogram
        return (
            last is not None and cv2.compareHist(last, histogram, cv2.HISTCMP_BHATTACHARYYA) > self._distance
        )


class Tracker:
    """Builds the tracks of one video from its frames in order."""

    def __init__(self, config: Tracking) -> None:
        self._config = config
        self._active: list[Track] = []
        self._last_frame_s = 0.0
        self.tracks: list[Track] = []
        """All tracks so far, by their first frame."""

    def add(self, observations: list[FaceObservation], time_s: float, cut: bool) -> None:
        """Give each face of the next frame to the track it continues, or to a new one."""
        for track in self._active:
            track.severed |= cut
        # In a long video the analysed frames alone may be further apart than the allowed gap.
        oldest = min(time_s - self._config.max_gap_s, self._last_frame_s)
        self._active = [track for track in self._active if track.last.time_s >= oldest]
        self._last_frame_s = time_s
        free = set(range(len(observations)))
        if self._active and observations:
            from scipy.optimize import linear_sum_assignment

            costs = np.array([[self._cost(track, face) for face in observations] for track in self._active])
            for row, column in np.stack(linear_sum_assignment(costs), axis=1).tolist():
                if costs[row, column] < FORBIDDEN:
                    self._active[row].add(observations[column])
                    free.discard(column)
        for unclaimed in sorted(free):
            track = Track()
            track.add(observations[unclaimed])
            self._active.append(track)
            self.tracks.append(track)

    def _cost(self, track: Track, face: FaceObservation) -> float:
        overlap = intersection_over_union(track.last.detection.box, face.detection.box)
        last = track.last.usable
        if overlap >= SURE_OVERLAP and not track.severed and last is not None and face.usable is not None:
            similarity = last.face.similarity(face.usable.face)
            if similarity >= SURE_SIMILARITY:
                return -(overlap + similarity)
        cosine = track.cosine(face)
        if cosine is None:
            near = overlap >= self._config.min_overlap and not track.severed
            return -overlap if near else FORBIDDEN
        near = not track.severed and overlap >= self._config.min_overlap and cosine >= self._config.min_cosine
        return -(overlap + cosine) if near or cosine >= self._config.rejoin_cosine else FORBIDDEN


def intersection_over_union(first: Floats, second: Floats) -> float:
    """Overlap of two boxes (x0, y0, x1, y1), 0 to 1."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    total = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / total if total > 0 else 0.0
