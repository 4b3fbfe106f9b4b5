"""The geometry of the page's figures: head pose along a track, and the lanes of all tracks along the video.

The shapes are plain values; the template turns them into SVG. Lengths are in units of the figure's view box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pipeline.explain.facts import pitch, yaw
from pipeline.explain.runs import FACES, NO_FACE, USABLE, TrackFaces, frame_states, state
from pipeline.records import Timeline, TimelineFace

COLOURS = {
    USABLE: "#1b9e77",
    "face_too_small": "#e69f00",
    "crop_too_small": "#f0c419",
    "face_cut_off": "#a6761d",
    "no_landmarks": "#8a8f98",
    "extreme_pose": "#7570b3",
    "too_dark": "#3d5a98",
    "noisy": "#56b4e9",
    "blurred": "#cc79a7",
    "pose_outlier": "#66a61e",
    "other_identity": "#d55e00",
    "corrupt_frame": "#b2182b",
    NO_FACE: "#c3c9d0",
    FACES: "#8fb7dd",
}
"""After Okabe and Ito, as distinct as so many can be to colour-blind readers; the text names each state too."""
OTHER = "#5f6670"

WIDTH, LEFT, RIGHT = 1000.0, 44.0, 14.0
TOP, PLOT = 18.0, 170.0
LANE = 14.0
LANE_STEP = 20.0
MOST_LANES = 30


@dataclass(frozen=True)
class Box:
    """A piece of a lane."""

    x: float
    y: float
    width: float
    state: str
    title: str


@dataclass(frozen=True)
class Point:
    """A frame on a pose curve; `number` counts the chosen ones from 1."""

    x: float
    y: float
    state: str
    title: str
    number: int | None


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class PoseChart:
    """Yaw and pitch of a track against time.

    Attributes:
        height: of the view box.
        lane_y: top of the lane that shows the state of every frame.
        yaw: SVG path of the yaw, with gaps where no pose is known.
        pitch: likewise of the pitch.
        points: one on each curve for each frame whose pose is known.
        lane: one piece a frame.
        chosen: (x, number) of each chosen frame.
        times: ticks in seconds.
        angles: ticks in degrees.
    """

    height: float
    lane_y: float
    yaw: str
    pitch: str
    points: list[Point]
    lane: list[Box]
    chosen: list[tuple[float, int]]
    times: list[Tick]
    angles: list[Tick]


@dataclass(frozen=True)
class Lanes:
    """All tracks along the time of the video, a lane each; a first one for frames without a face, if any."""

    height: float
    boxes: list[Box]
    labels: list[Tick]
    chosen: list[tuple[float, float]]
    times: list[Tick]
    left_out: int


def colour(name: str) -> str:
    """The colour of `usable`, of `no_face` or of a reason."""
    return COLOURS.get(name, OTHER)


def pose_chart(track: TrackFaces, step: float) -> PoseChart:
    """The figure of one track.

    Args:
        track: the track.
        step: usual distance of two analysed frames, in seconds.
    """
    faces = track.faces
    x = _scale(faces[0].time_s, faces[-1].time_s, step)
    posed = [face for face in faces if face.pose]
    values = [angle(face) for face in posed for angle in (yaw, pitch)]
    low, high, apart = _angle_range(values)

    def y(degrees: float) -> float:
        return round(TOP + PLOT * (high - degrees) / (high - low), 1)

    numbers = {face.frame: number for number, face in enumerate(track.chosen, 1)}
    points = [
        Point(x(face.time_s), y(angle(face)), state(face), title(face), numbers.get(face.frame))
        for face in posed
        for angle in (yaw, pitch)
    ]
    lane_y = TOP + PLOT + 8
    return PoseChart(
        height=lane_y + LANE + 22,
        lane_y=lane_y,
        yaw=_path(faces, x, lambda face: y(yaw(face))),
        pitch=_path(faces, x, lambda face: y(pitch(face))),
        points=points,
        lane=_pieces([(face.time_s, state(face), title(face)) for face in faces], x, lane_y, step),
        chosen=[(x(face.time_s), numbers[face.frame]) for face in track.chosen],
        times=_time_ticks(faces[0].time_s, faces[-1].time_s, x),
        angles=[
            Tick(y(degrees), f"{degrees:+d}°" if degrees else "0°") for degrees in range(low, high + 1, apart)
        ],
    )


def lanes(timeline: Timeline, tracks: Sequence[TrackFaces]) -> Lanes:
    """The figure of the whole video; with many tracks, the shortest are left out."""
    times = [frame.time_s for frame in timeline.frames]
    step = usual_step(timeline)
    x = _scale(times[0], times[-1], step)
    shown = sorted(tracks, key=lambda track: -len(track.faces))[:MOST_LANES]
    shown.sort(key=lambda track: track.number)
    boxes: list[Box] = []
    labels: list[Tick] = []
    chosen: list[tuple[float, float]] = []
    whole = [(at, name, f"{at:.2f} s: {name}") for at, name in frame_states(timeline)]
    if any(name != FACES for _, name, _ in whole):
        labels.append(Tick(TOP + LANE - 3, "all"))
        boxes += _pieces(whole, x, TOP, step)
    for track in shown:
        y = TOP + len(labels) * LANE_STEP
        labels.append(Tick(y + LANE - 3, str(track.number)))
        faces = [(face.time_s, state(face), title(face)) for face in track.faces]
        boxes += _pieces(faces, x, y, step)
        chosen += [(round(x(face.time_s + step / 2), 1), y + LANE / 2) for face in track.chosen]
    height = TOP + len(labels) * LANE_STEP + 20
    return Lanes(height, boxes, labels, chosen, _time_ticks(times[0], times[-1], x), len(tracks) - len(shown))


def title(face: TimelineFace) -> str:
    """The tooltip of a face."""
    parts = [
        f"{face.time_s:.2f} s, frame {face.frame}, track {face.track}: {state(face)}",
        f"face {face.face_px:.0f} px",
        f"crop {face.crop_px[2]:.0f} px" if face.crop_px else None,
        f"yaw {round(face.pose.yaw):+d} pitch {round(face.pose.pitch):+d} roll {round(face.pose.roll):+d}"
        if face.pose
        else None,
        f"sharpness {face.sharpness:.0f}" if face.sharpness is not None else None,
        f"quality {face.quality:g}" if face.quality is not None else None,
        "chosen" if face.chosen else "candidate" if face.candidate else None,
    ]
    return ", ".join(part for part in parts if part)


def usual_step(timeline: Timeline) -> float:
    """Median distance of two analysed frames, in seconds."""
    gaps = [after.time_s - before.time_s for before, after in pairwise(timeline.frames)]
    return median(gaps) if gaps else 0.1


def _scale(start_s: float, end_s: float, step: float) -> Callable[[float], float]:
    """From seconds to the x axis, with room for the piece of the last frame."""
    span = max(end_s + step - start_s, 1e-3)
    return lambda time_s: round(LEFT + (WIDTH - LEFT - RIGHT) * (time_s - start_s) / span, 1)


def _pieces(
    frames: Sequence[tuple[float, str, str]], x: Callable[[float], float], y: float, step: float
) -> list[Box]:
    """One piece of a lane for each frame, up to the next one or as wide as `step`, the usual distance."""
    times = [time_s for time_s, _, _ in frames]
    ends = [after if after - time_s < 1.5 * step else time_s + step for time_s, after in pairwise(times)]
    return [
        Box(x(time_s), y, round(max(1.5, x(end) - x(time_s)), 1), name, text)
        for (time_s, name, text), end in zip(frames, [*ends, times[-1] + step], strict=True)
    ]


def _path(
    faces: Sequence[TimelineFace], x: Callable[[float], float], y: Callable[[TimelineFace], float]
) -> str:
    """An SVG path through the frames whose pose is known, interrupted by those where it is not."""
    parts, pen = [], "M"
    for face in faces:
        if face.pose is None:
            pen = "M"
            continue
        parts.append(f"{pen}{x(face.time_s):g} {y(face):g}")
        pen = "L"
    return "".join(parts)


def _angle_range(values: Sequence[float]) -> tuple[int, int, int]:
    """Least and greatest angle of the axis and the distance of its ticks, in whole degrees."""
    low, high = min([-10.0, *values]), max([10.0, *values])
    step = next(step for step in (5, 10, 20, 30, 60) if (high - low) / step <= 8 or step == 60)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _time_ticks(start_s: float, end_s: float, x: Callable[[float], float]) -> list[Tick]:
    span = max(end_s - start_s, 1e-3)
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
    step = next((step for step in steps if span / step <= 10), 3600)
    first, last = math.ceil(start_s / step - 1e-6), math.floor(end_s / step + 1e-6)
    return [Tick(x(number * step), f"{number * step:g} s") for number in range(first, last + 1)]
