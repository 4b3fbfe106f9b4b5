"""The scenes of the demo clips: streams of frames, each with its truth.

Scenes take and give iterators, so that no clip is in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from faces.types import Image
from pipeline.demo.defects import spoil
from pipeline.demo.mesh import HeadMesh
from pipeline.demo.motion import PoseRange, Values, talking_head, there_and_back
from pipeline.demo.render import HeadState, render
from pipeline.demo.truth import Defect, FaceTruth, FrameTruth

Scene = Iterator[tuple[Image, FrameTruth]]

EYES_CLOSED_BELOW = 0.5
"""Eye opening below which a frame counts as one with closed eyes."""
SPOILT_FOR_S = 0.4
"""Length of a run of spoilt frames, and of the sound run after it."""


def solo(identity: str, mesh: HeadMesh, times: Values, rng: np.random.Generator, poses: PoseRange) -> Scene:
    """One person talks."""
    for time, state in zip(times.tolist(), talking_head(times, rng, poses), strict=True):
        defect = Defect.EYES_CLOSED if state.eyes_open < EYES_CLOSED_BELOW else None
        yield render(mesh, state), _truth(time, defect, identity, state)


def spoilt(
    identity: str,
    mesh: HeadMesh,
    times: Values,
    rng: np.random.Generator,
    poses: PoseRange,
    *,
    defects: Sequence[Defect],
) -> Scene:
    """One person talks in runs of sound and spoilt frames, such that every pose occurs in both.

    Args:
        identity: of the person.
        mesh: their head.
        times: (N,) presentation times in seconds.
        rng: source of every random choice.
        poses: where the pose wanders.
        defects: taken in turns, one per run of spoilt frames.
    """
    moments = there_and_back(times)
    middle = (times[0] + times[-1]) / 2
    states = talking_head(moments, rng, poses)
    for time, moment, state in zip(times.tolist(), (moments - times[0]).tolist(), states, strict=True):
        run = int(moment / SPOILT_FOR_S)
        is_spoilt = (run % 2 == 1) == (time < middle)
        defect = defects[run // 2 % len(defects)] if is_spoilt else None
        opening = 0.0 if defect is Defect.EYES_CLOSED else 1.0
        shown = HeadState(state.pose, opening, state.mouth_open, state.shift_px)
        image = render(mesh, shown)
        if defect is not None and defect is not Defect.EYES_CLOSED:
            image = spoil(image, defect, rng)
        yield image, _truth(time, defect, identity, shown)


def from_afar(scene: Scene, shrink: float) -> Scene:
    """The scene so far away that its face is too small; around it a wall of its corner's colours."""
    for image, truth in scene:
        height, width = image.shape[:2]
        small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        corner = cv2.GaussianBlur(image[: height // 16, : width // 16], (0, 0), 9)
        wall = cv2.resize(corner, (width, height))
        y, x = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
        wall[y : y + small.shape[0], x : x + small.shape[1]] = small
        yield (
            np.asarray(wall, np.uint8),
            FrameTruth(time_s=truth.time_s, defect=Defect.FACE_TOO_SMALL, faces=truth.faces),
        )


def side_by_side(left: Scene, right: Scene) -> Scene:
    """Two people in one frame."""
    for (left_image, left_truth), (right_image, right_truth) in zip(left, right, strict=True):
        yield (
            np.concatenate([left_image, right_image], axis=1),
            FrameTruth(
                time_s=left_truth.time_s,
                defect=left_truth.defect or right_truth.defect,
                faces=[*left_truth.faces, *right_truth.faces],
            ),
        )


def still_life(photograph: Image, box: tuple[float, float, float, float], times: Values) -> Scene:
    """The camera moves over a part of a photograph that shows no face.

    Args:
        photograph: (H, W, 3) RGB.
        box: x0, y0, x1, y1 in its pixels.
        times: (N,) presentation times in seconds.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    part = photograph[y0:y1, x0:x1]
    side = min(part.shape[:2])
    travel = part.shape[1] - side
    for share, time in zip(np.linspace(0, 1, len(times)).tolist(), times.tolist(), strict=True):
        shift = np.array([[1.0, 0.0, -share * travel], [0.0, 1.0, 0.0]])
        view = cv2.warpAffine(part, shift, (side, side), flags=cv2.INTER_LINEAR)
        frame = cv2.resize(view, (512, 512), interpolation=cv2.INTER_CUBIC)
        yield np.asarray(frame, np.uint8), FrameTruth(time_s=time, defect=Defect.NO_FACE, faces=[])


def _truth(time: float, defect: Defect | None, identity: str, state: HeadState) -> FrameTruth:
    face = FaceTruth(
        identity=identity,
        yaw=round(state.pose.yaw, 3),
        pitch=round(state.pose.pitch, 3),
        roll=round(state.pose.roll, 3),
        eyes_open=round(state.eyes_open, 3),
        mouth_open=round(state.mouth_open, 3),
    )
    return FrameTruth(time_s=round(time, 6), defect=defect, faces=[face])
