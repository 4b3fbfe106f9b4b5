"""Renders a head in a given pose, with eyes and mouth open as given.

Every pixel of the frame gets the triangle that covers it, and from that the position of its colour in the
portrait; one remap then fetches all colours. Triangles are drawn from far to near, so a turned face hides
its own cheek.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from faces.pose import rotation_from_pose
from faces.types import HeadPose, Image
from pipeline.demo.mesh import LID_CREASES, UPPER_LIDS, HeadMesh, Points

JAW_DEG = 14.0
"""Turn of the jaw when the mouth is wide open."""
MOUTH_COLOUR = (46, 19, 18)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class HeadState:
    """What a head does in one frame.

    Attributes:
        pose: absolute head pose.
        eyes_open: 1 as in the photograph, 0 closed.
        mouth_open: 0 as in the photograph, 1 wide open.
        shift_px: offset of the head from its position in the photograph: right, down.
    """

    pose: HeadPose
    eyes_open: float = 1.0
    mouth_open: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)


def place_vertices(mesh: HeadMesh, state: HeadState) -> tuple[Points, Points]:
    """The positions of a head's vertices in the frame.

    Returns:
        (V, 2) pixels and (V,) nearness in pixels, larger is nearer to the viewer.
    """
    closed = mesh.head + (1 - state.eyes_open) * mesh.lid_fall
    head = _with_open_mouth(closed, mesh.jaw, state.mouth_open)
    turned = head @ rotation_from_pose(state.pose).T
    on_face = mesh.pivot_px + turned[:, :2] * np.array([1.0, -1.0]) + np.array(state.shift_px)
    moved = (on_face - mesh.rest_px)[mesh.parent]
    placed = mesh.rest_px + mesh.follow[:, None] * moved
    return placed, turned[mesh.parent, 2] - mesh.behind_px


def render(mesh: HeadMesh, state: HeadState) -> Image:
    """The portrait with its head in another state: (H, W, 3) RGB."""
    placed, nearness = place_vertices(mesh, state)
    height, width = mesh.image.shape[:2]
    covering = _covering_triangles(placed, nearness, mesh.triangles, width, height)
    # One table per coefficient: a gather of scalars is several times faster than one of rows.
    xx, xy, x0, yx, yy, y0 = (
        np.take(table, covering) for table in _affine_maps(placed, mesh.rest_px, mesh.triangles)
    )
    xs = np.arange(width, dtype=np.float32)[None, :]
    ys = np.arange(height, dtype=np.float32)[:, None]
    map_x, map_y = xx * xs + xy * ys + x0, yx * xs + yy * ys + y0
    drawn = cv2.remap(mesh.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    frame = np.asarray(drawn, np.uint8)
    frame[np.take(np.append(False, mesh.dark), covering)] = MOUTH_COLOUR
    closed = 1 - state.eyes_open
    return frame if closed <= 0 else _with_smooth_lids(frame, placed, mesh.lid_colours, closed)


def _with_smooth_lids(frame: Image, placed: Points, colours: Points, closed: float) -> Image:
    """Cover closing lids with plain skin: the fold of an open lid must not show on them."""
    result = frame.copy()
    for upper, crease, colour in zip(UPPER_LIDS, LID_CREASES, colours, strict=True):
        edge, fold = placed[list(upper)], placed[list(crease)]
        softness = 0.06 * float(np.linalg.norm(edge[-1] - edge[0]))
        lid = np.concatenate([edge, fold[::-1]])
        x0, y0 = np.maximum(0, np.floor(lid.min(axis=0) - 5 * softness).astype(int))
        x1, y1 = np.maximum(0, np.ceil(lid.max(axis=0) + 5 * softness).astype(int))
        part = result[y0:y1, x0:x1].astype(np.float32)
        if part.size == 0:
            continue
        skin, lashes = np.zeros(part.shape[:2], np.float32), np.zeros(part.shape[:2], np.float32)
        cv2.fillPoly(skin, [_fixed_point(lid - [x0, y0 + softness])], closed, cv2.LINE_8, _SUBPIXEL_BITS)
        line = _fixed_point(edge - [x0, y0])
        cv2.polylines(lashes, [line], False, closed, max(1, round(softness)), cv2.LINE_8, _SUBPIXEL_BITS)
        part += cv2.GaussianBlur(skin, (0, 0), softness)[..., None] * (colour.astype(np.float32) - part)
        part *= 1 - 0.75 * cv2.GaussianBlur(lashes, (0, 0), 0.5 * softness)[..., None]
        result[y0:y1, x0:x1] = np.clip(np.round(part), 0, 255).astype(np.uint8)
    return result


def _fixed_point(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _with_open_mouth(head: Points, jaw: Points, opening: float) -> Points:
    """Turn the jaw about the axis through the ears, which is the head's own x axis."""
    angle = np.radians(JAW_DEG) * opening * jaw
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = head.T
    return np.stack([x, y * cos - z * sin, y * sin + z * cos], axis=1)


def _covering_triangles(
    placed: Points, nearness: Points, triangles: NDArray[np.intp], width: int, height: int
) -> NDArray[np.int32]:
    """(H, W): 1 + index of the triangle seen at each pixel, 0 where there is none."""
    covering = np.zeros((height, width), np.int32)
    corners = _fixed_point(placed[triangles])
    for index in np.argsort(nearness[triangles].mean(axis=1), kind="stable").tolist():
        cv2.fillConvexPoly(covering, corners[index], index + 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return covering


def _affine_maps(placed: Points, source: Points, triangles: NDArray[np.intp]) -> NDArray[np.float32]:
    """(6, 1 + T): per triangle its map from frame to portrait, xx xy x0 yx yy y0; first that of none."""
    corners = np.concatenate([placed[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    thin = np.abs(np.linalg.det(corners)) < 1e-6
    corners[thin] = np.eye(3)
    solved = np.linalg.solve(corners, source[triangles])
    # A triangle without area covers at most a line, which takes the colour of one of its corners.
    solved[thin] = 0.0
    solved[thin, 2] = source[triangles[thin, 0]]
    maps = np.zeros((1 + len(triangles), 6), np.float32)
    maps[0] = [1, 0, 0, 0, 1, 0]
    maps[1:] = solved.transpose(0, 2, 1).reshape(-1, 6)
    return np.ascontiguousarray(maps.T)
