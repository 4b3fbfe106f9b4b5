"""How accurate the pose is of faces that were rendered in known poses."""

from __future__ import annotations

import numpy as np
import pytest

from faces.landmarks import FaceLandmarker
from faces.types import HeadPose
from pipeline.demo.mesh import HeadMesh, build_head, frontal_head
from pipeline.demo.photographs import packaged_landmarker, portrait
from pipeline.demo.render import HeadState, render

FACES = ("astronaut", "group-1", "group-3", "group-4", "group-6")
# fmt: off
LEFT_HALF = [33, 133, 61, 234, 127, 50, 105, 159, 145, 172, 58, 136, 98, 64, 46, 205]
RIGHT_HALF = [263, 362, 291, 454, 356, 280, 334, 386, 374, 397, 288, 365, 327, 294, 276, 425]
# fmt: on
BOX = np.array([150, 105, 362, 375], np.float32)
SWEEP = np.linspace(-30, 30, 7)


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return packaged_landmarker()


@pytest.fixture(scope="module")
def heads(landmarker: FaceLandmarker) -> dict[str, HeadMesh]:
    return {identity: build_head(portrait(identity, landmarker)) for identity in FACES}


def estimated(landmarker: FaceLandmarker, mesh: HeadMesh, poses: list[HeadPose]) -> np.ndarray:
    found = [landmarker.find(render(mesh, HeadState(pose)), BOX) for pose in poses]
    assert all(found), "a rendered face was not found"
    return np.array([(face.pose.yaw, face.pose.pitch, face.pose.roll) for face in found if face])


@pytest.mark.parametrize("identity", FACES)
def test_a_head_with_its_pose_undone_is_frontal_by_its_own_symmetry(
    landmarker: FaceLandmarker, identity: str
) -> None:
    head, _ = frontal_head(portrait(identity, landmarker))
    left, right = head[LEFT_HALF], head[RIGHT_HALF]
    width = float(np.linalg.norm(head[454] - head[234]))
    across = right[:, 0] - left[:, 0]
    yaw_left = np.median(np.degrees(np.arctan2(left[:, 2] - right[:, 2], across)))
    roll_left = np.median(np.degrees(np.arctan2(left[:, 1] - right[:, 1], across)))
    assert abs(yaw_left) < 5, "one side of the face is nearer than the other"
    assert abs(roll_left) < 3, "one side of the face is higher than the other"
    assert head[1, 2] > head[[234, 454], 2].max() + 0.3 * width, "the nose points at the viewer"


def test_yaw_pitch_and_roll_within_30_degrees_are_found_to_5_degrees(
    landmarker: FaceLandmarker, heads: dict[str, HeadMesh]
) -> None:
    rng = np.random.default_rng(5)
    errors = []
    for mesh in heads.values():
        truth = rng.uniform(-30, 30, (16, 3))
        errors.append(estimated(landmarker, mesh, [HeadPose(*angles) for angles in truth]) - truth)
    medians = np.median(np.abs(np.concatenate(errors)), axis=0)
    assert (medians < 5).all(), f"median absolute errors of yaw, pitch, roll: {medians}"
    assert medians[2] < 2, "roll is the easy one"


@pytest.mark.parametrize("identity", FACES)
@pytest.mark.parametrize(("angle", "column"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_each_angle_alone_has_the_right_sign_and_scale(
    landmarker: FaceLandmarker, heads: dict[str, HeadMesh], identity: str, angle: str, column: int
) -> None:
    poses = [HeadPose(**{"yaw": 0.0, "pitch": 0.0, "roll": 0.0, angle: float(value)}) for value in SWEEP]
    found = estimated(landmarker, heads[identity], poses)[:, column]
    assert (np.diff(found) > 0).all(), f"{angle} does not rise: {found}"
    slope = np.polyfit(SWEEP, found, 1)[0]
    assert 0.6 < slope < 1.2, f"{angle} comes out {slope:.2f} times as large"
