"""The mask of a head that is turned: against the silhouette of heads rendered in known poses.

The silhouette and what hides a landmark come from the geometry of the rendered mesh by other means than the
mask: a depth buffer sampled at pixel centres, and a line of sight per landmark.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from faces.landmarks import LANDMARKS
from faces.mask import face_mask
from faces.types import HeadPose
from pipeline.demo.mesh import VERTICES, HeadMesh, Points, build_head
from pipeline.demo.photographs import packaged_landmarker, portrait
from pipeline.demo.render import HeadState, place_vertices

HEADS = ("astronaut", "group-3", "group-4")
YAWS = [HeadPose(float(yaw), 0.0, 0.0) for yaw in range(-75, 90, 15)]
TILTED = [
    HeadPose(0.0, 30.0, 0.0),
    HeadPose(0.0, -30.0, 40.0),
    HeadPose(45.0, 20.0, 15.0),
    HeadPose(-60.0, -20.0, -25.0),
]
POSES = [pytest.param(pose, id=f"{pose.yaw:+.0f}{pose.pitch:+.0f}{pose.roll:+.0f}") for pose in YAWS + TILTED]
EYE_CORNERS = ((33, 133), (362, 263))
NOSE_TIP, LIPS = 1, (0, 17)
LEFT_CHEEK, RIGHT_CHEEK = 50, 280
"""As seen in the image of a frontal face."""

Bools = NDArray[np.bool_]


@cache
def head(identity: str) -> HeadMesh:
    return build_head(portrait(identity, packaged_landmarker()))


def landmarks(placed: Points) -> NDArray[np.float32]:
    """The 478 landmarks of a placed head; the mesh has no irises, so they stand in the middle of the eyes."""
    irises = [np.tile(placed[list(corners)].mean(axis=0), (5, 1)) for corners in EYE_CORNERS]
    points = np.concatenate([placed[:VERTICES], *irises]).astype(np.float32)
    assert len(points) == LANDMARKS
    return points


def silhouettes(mesh: HeadMesh, placed: Points, nearness: Points) -> tuple[Bools, Bools]:
    """(H, W) each: the pixel centres that the face covers, and those with no part of the head in front."""
    height, width = mesh.image.shape[:2]
    depth = np.full((height, width), -np.inf)
    covered, is_face = np.zeros((2, height, width), np.bool_)
    around = (mesh.parent != np.arange(len(mesh.parent)))[mesh.triangles].any(axis=1)
    for triangle, is_around in zip(mesh.triangles, around, strict=True):
        corners = placed[triangle]
        low = np.clip(np.ceil(corners.min(axis=0)), 0, (width, height)).astype(int)
        high = np.clip(np.floor(corners.max(axis=0)) + 1, 0, (width, height)).astype(int)
        ys, xs = np.mgrid[low[1] : high[1], low[0] : high[0]]
        inside, z = across(corners, nearness[triangle], np.stack([xs, ys], axis=-1).astype(np.float64))
        there = (slice(low[1], high[1]), slice(low[0], high[0]))
        covered[there] |= inside & (not is_around)
        nearest = inside & (z > depth[there])
        depth[there][nearest] = z[nearest]
        is_face[there][nearest] = not is_around
    return covered, is_face


def visible_landmarks(mesh: HeadMesh, placed: Points, nearness: Points) -> Bools:
    """(468,): whether no triangle stands before a landmark, seen from the camera."""
    visible = np.ones(VERTICES, np.bool_)
    vertex = np.arange(VERTICES)
    for triangle in mesh.triangles:
        inside, z = across(placed[triangle], nearness[triangle], placed[:VERTICES])
        visible &= ~(inside & (z > nearness[:VERTICES] + 1e-6) & ~np.isin(vertex, triangle))
    return visible


def across(corners: Points, nearness: Points, points: Points) -> tuple[Bools, Points]:
    """Which points (…, 2) a triangle covers, and how near its plane is there; it covers none seen edge-on."""
    a, b, c = corners
    area = float(np.cross(b - a, c - a))
    if abs(area) < 1e-9:
        return np.zeros(points.shape[:-1], np.bool_), np.zeros(points.shape[:-1])
    of_b, of_c = np.cross(points - a, c - a) / area, np.cross(b - a, points - a) / area
    of_a = 1 - of_b - of_c
    inside = (of_a >= 0) & (of_b >= 0) & (of_c >= 0)
    return inside, of_a * nearness[0] + of_b * nearness[1] + of_c * nearness[2]


@pytest.mark.parametrize("identity", HEADS)
@pytest.mark.parametrize("pose", POSES)
def test_the_mask_is_the_silhouette_of_the_face(identity: str, pose: HeadPose) -> None:
    mesh = head(identity)
    placed, nearness = place_vertices(mesh, HeadState(pose))
    mask = face_mask(landmarks(placed), mesh.image.shape[0]) > 0
    face, seen = silhouettes(mesh, placed, nearness)
    assert (mask & seen).sum() / (mask | seen).sum() >= 0.97
    assert (face & ~mask).sum() == 0, "the mask has cracks or holes"
    edge = cv2.dilate(face.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (mask & ~edge).sum() == 0, "the mask reaches more than a pixel beyond the face"


@pytest.mark.parametrize("identity", HEADS)
@pytest.mark.parametrize("pose", POSES)
def test_every_visible_landmark_is_inside_of_the_mask(identity: str, pose: HeadPose) -> None:
    mesh = head(identity)
    placed, nearness = place_vertices(mesh, HeadState(pose))
    mask = face_mask(landmarks(placed), mesh.image.shape[0])
    visible = visible_landmarks(mesh, placed, nearness)
    x, y = np.round(placed[:VERTICES][visible]).astype(int).T
    assert (mask[y, x] == 255).all()
    assert visible[[NOSE_TIP, *LIPS]].all(), "nose and lips are seen in all of these poses"
    if abs(pose.yaw) >= 45:
        near, far = (RIGHT_CHEEK, LEFT_CHEEK) if pose.yaw < 0 else (LEFT_CHEEK, RIGHT_CHEEK)
        assert visible[near]
        assert visible.mean() < 0.85
        assert abs(pose.yaw) < 75 or not visible[far], "in profile the far cheek is hidden"
    else:
        assert visible.mean() > 0.85
