"""Stretches of a video in which the same thing happened to a face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from pipeline.records import Timeline, TimelineFace

USABLE = "usable"
NO_FACE = "no_face"
FACES = "faces"


@dataclass(frozen=True)
class Run:
    """Consecutive analysed frames with one state: `usable`, or the reason why not."""

    start_s: float
    end_s: float
    state: str
    frames: int


@dataclass(frozen=True)
class TrackFaces:
    """The faces of a track, in time order."""

    number: int
    faces: list[TimelineFace]

    @property
    def runs(self) -> list[Run]:
        """The outcome of the face along the track."""
        return runs((face.time_s, state(face)) for face in self.faces)

    @property
    def chosen(self) -> list[TimelineFace]:
        """The faces whose images were chosen."""
        return [face for face in self.faces if face.chosen]


def state(face: TimelineFace) -> str:
    """`usable`, or the reason why a face is not."""
    return face.reason or USABLE


def runs(states: Iterable[tuple[float, str]]) -> list[Run]:
    """Join neighbours of one state.

    Args:
        states: (time in seconds, state) of each frame, in time order.
    """
    found = []
    for name, group in groupby(states, key=lambda item: item[1]):
        times = [time_s for time_s, _ in group]
        found.append(Run(times[0], times[-1], name, len(times)))
    return found


def tracks_of(timeline: Timeline) -> list[TrackFaces]:
    """The tracks of a timeline, by number."""
    by_track = groupby(sorted(timeline.faces, key=lambda face: face.track), key=lambda face: face.track)
    return [TrackFaces(number, sorted(faces, key=lambda f: f.time_s)) for number, faces in by_track]


def frame_states(timeline: Timeline) -> list[tuple[float, str]]:
    """(time, what the whole frame showed): the reason for which it was dropped, `no_face` or `faces`."""
    seen = {face.frame for face in timeline.faces}
    return [
        (frame.time_s, frame.reason or (FACES if frame.frame in seen else NO_FACE))
        for frame in timeline.frames
    ]


def frame_runs(timeline: Timeline) -> list[Run]:
    """The stretches of `frame_states`."""
    return runs(frame_states(timeline))
