"""From a portrait to a head that can be turned, talk and blink.

The landmarks of the portrait are a 3-D mesh. Undoing the portrait's own pose gives the mesh of a frontal
head. Rings of further vertices, the skirt, surround the face's outline: each moves with its outline
vertex, the less the farther out, and the outermost stays where it is in the photograph. So hair, ears and
neck follow the head and no edge shows. Strips close the holes of the mesh: eyes, teeth, and a dark one
that opens with the lower lip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.landmarks import tessellation
from faces.pose import FACE_OVAL, rotation_from_pose
from faces.types import Image
from pipeline.demo.photographs import Portrait

Points = NDArray[np.float64]

VERTICES = 468
"""Landmarks that are part of the mesh; the ten after them are the irises."""

# Rows of landmarks from the image's left to its right.
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
LID_CREASES = ((247, 30, 29, 27, 28, 56, 190), (414, 286, 258, 257, 259, 260, 467))
CHEEKS = (50, 280)
INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LOWER_LIP_ROWS = (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
    (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
    INNER_LOWER_LIP,
)
UPPER_LIP_ROWS = (
    (185, 40, 39, 37, 0, 267, 269, 270, 409),
    (184, 74, 73, 72, 11, 302, 303, 304, 408),
    (183, 42, 41, 38, 12, 268, 271, 272, 407),
    INNER_UPPER_LIP,
)
MOUTH_CORNERS = (61, 291)
EARS = (234, 454)
CHIN = 152

SKIRT_SCALES = (1.08, 1.18, 1.3, 1.44, 1.6, 1.8, 2.05)
"""Size of each ring of the skirt relative to the face's outline."""
CREASE_SHARE = 0.3
"""How far an eyelid's crease comes down, relative to its edge."""


@dataclass(frozen=True)
class HeadMesh:
    """A head at rest and how it may move.

    Attributes:
        image: (H, W, 3) RGB, the portrait.
        triangles: (T, 3) vertex indices.
        dark: (T,) whether a triangle shows the inside of the mouth.
        rest_px: (V, 2) position of a vertex in the portrait.
        head: (V, 3) its position on the frontal head, in pixels: x right, y up, z towards the viewer, from
            `pivot_px`.
        pivot_px: (2,) the point between the ears, about which the head turns.
        lid_fall: (V, 3) how far a vertex of `head` moves when the eyes close.
        jaw: (V,) fraction of the jaw's opening that the vertex follows.
        parent: (V,) for a vertex of the skirt its outline vertex, for any other the vertex itself.
        follow: (V,) fraction of its parent's movement that a vertex makes; 1 on the face itself.
        behind_px: (V,) distance behind its parent, for hiding what is covered.
        lid_colours: (2, 3) RGB of the skin of each eyelid.
    """

    image: Image
    triangles: NDArray[np.intp]
    dark: NDArray[np.bool_]
    rest_px: Points
    head: Points
    pivot_px: Points
    lid_fall: Points
    jaw: Points
    parent: NDArray[np.intp]
    follow: Points
    behind_px: Points
    lid_colours: Points


def frontal_head(portrait: Portrait) -> tuple[Points, Points]:
    """The portrait's landmarks with its pose undone.

    Returns:
        (468, 3) vertices in pixels, x right, y up, z towards the viewer, from the point between the ears;
        and (2,) that point in the portrait.
    """
    points = portrait.landmarks.points[:VERTICES].astype(np.float64)
    pivot = points[list(EARS)].mean(axis=0)
    in_camera = (points - pivot) * np.array([1.0, -1.0, -1.0])
    # Row vectors: multiplying by R from the right applies its inverse.
    return in_camera @ rotation_from_pose(portrait.landmarks.pose), pivot[:2]


@dataclass
class _Parts:
    """Vertices and triangles of the mesh while it is being put together; see `HeadMesh` for the fields."""

    rest_px: list[Points]
    head: list[Points]
    lid_fall: list[Points]
    jaw: list[Points]
    parent: list[NDArray[np.intp]]
    follow: list[Points]
    behind_px: list[Points]
    triangles: list[NDArray[np.intp]]
    count: int = 0

    def add(
        self,
        head: Points,
        rest_px: Points,
        jaw: Points,
        *,
        parent: NDArray[np.intp] | None = None,
        lid_fall: Points | None = None,
        follow: Points | None = None,
        behind_px: Points | float = 0.0,
    ) -> NDArray[np.intp]:
        """Append vertices and return their indices."""
        number = len(head)
        indices = self.count + np.arange(number)
        self.count += number
        self.rest_px.append(rest_px)
        self.head.append(head)
        self.lid_fall.append(np.zeros((number, 3)) if lid_fall is None else lid_fall)
        self.jaw.append(jaw)
        self.parent.append(indices if parent is None else parent)
        self.follow.append(np.ones(number) if follow is None else follow)
        self.behind_px.append(np.broadcast_to(np.asarray(behind_px, np.float64), (number,)))
        return indices


def build_head(portrait: Portrait) -> HeadMesh:
    """The movable head of a portrait."""
    head, pivot = frontal_head(portrait)
    face_px = portrait.landmarks.points[:VERTICES, :2].astype(np.float64)
    jaw = _jaw_weights(head)
    parts = _Parts([], [], [], [], [], [], [], [tessellation()])
    parts.add(head, face_px, jaw, lid_fall=_lid_fall(head))
    parts.triangles += [_strip(np.array(a), np.array(b)) for a, b in zip(UPPER_LIDS, LOWER_LIDS, strict=True)]
    darkness = _add_mouth(parts, head, face_px, jaw)
    _add_skirt(parts, head, face_px, jaw)
    triangles = np.concatenate(parts.triangles)
    return HeadMesh(
        image=portrait.image,
        triangles=triangles,
        dark=np.asarray(np.isin(triangles, darkness).all(axis=1), np.bool_),
        rest_px=np.concatenate(parts.rest_px),
        head=np.concatenate(parts.head),
        pivot_px=pivot,
        lid_fall=np.concatenate(parts.lid_fall),
        jaw=np.concatenate(parts.jaw),
        parent=np.concatenate(parts.parent),
        follow=np.concatenate(parts.follow),
        behind_px=np.concatenate(parts.behind_px),
        lid_colours=np.stack([_lid_colour(portrait.image, face_px, side) for side in range(2)]),
    )


def _add_mouth(parts: _Parts, head: Points, face_px: Points, jaw: Points) -> NDArray[np.intp]:
    """Teeth that stay with the upper jaw, and below them the dark that an opening mouth shows.

    Returns:
        The vertices of the dark.
    """
    upper, lower = np.array(INNER_UPPER_LIP), np.array(INNER_LOWER_LIP)
    still = np.zeros(len(lower))
    teeth = parts.add(head[lower], face_px[lower], still, behind_px=1.0)
    dark_top = parts.add(head[lower], face_px[lower], still, behind_px=2.0)
    dark_bottom = parts.add(head[lower], face_px[lower], jaw[lower], behind_px=2.0)
    parts.triangles += [_strip(upper, teeth), _strip(dark_top, dark_bottom)]
    return np.concatenate([dark_top, dark_bottom])


def _add_skirt(parts: _Parts, head: Points, face_px: Points, jaw: Points) -> None:
    outline = face_px[FACE_OVAL]
    middle = outline.mean(axis=0)
    spread = float(np.linalg.norm(outline - middle, axis=1).mean())
    inner = FACE_OVAL
    for scale in SKIRT_SCALES:
        outwards = np.full(len(outline), (scale - 1) / (SKIRT_SCALES[-1] - 1))
        outer = parts.add(
            head[FACE_OVAL],
            middle + scale * (outline - middle),
            jaw[FACE_OVAL],
            parent=FACE_OVAL,
            follow=1 - _smoothstep(outwards),
            behind_px=(scale - 1) * spread,
        )
        parts.triangles.append(_strip(np.append(inner, inner[0]), np.append(outer, outer[0])))
        inner = outer


def _strip(upper: NDArray[np.intp], lower: NDArray[np.intp]) -> NDArray[np.intp]:
    """Triangles between two rows of as many vertices; those without area draw nothing."""
    a, b, c, d = upper[:-1], upper[1:], lower[:-1], lower[1:]
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])


def _smoothstep(value: Points) -> Points:
    t = np.clip(value, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _jaw_weights(head: Points) -> Points:
    """0 above the mouth, 1 from a little below; along the lip most in the middle."""
    corners = head[list(MOUTH_CORNERS), 1].mean()
    weights = _smoothstep((corners - head[:, 1]) / (0.4 * (corners - head[CHIN, 1])))
    for row in UPPER_LIP_ROWS:
        weights[list(row)] = 0.0
    for row in LOWER_LIP_ROWS:
        weights[list(row)] = np.sin(np.pi * np.arange(len(row)) / (len(row) - 1)) ** 0.7
    return weights


def _lid_fall(head: Points) -> Points:
    """The upper lid comes down to the lower one and takes its crease along for part of the way."""
    fall = np.zeros_like(head)
    for upper, lower, crease in zip(UPPER_LIDS, LOWER_LIDS, LID_CREASES, strict=True):
        down = head[list(lower)] - head[list(upper)]
        fall[list(upper)] = down
        fall[list(crease)] = CREASE_SHARE * down[1:-1]
    return fall


def _lid_colour(image: Image, face_px: Points, side: int) -> Points:
    """A lid is a little darker than the cheek and has the light that falls on its crease."""
    crease = _mean_colour(image, face_px[list(LID_CREASES[side])])
    cheek = _mean_colour(image, face_px[[CHEEKS[side]]])
    return 0.4 * crease + 0.55 * cheek


def _mean_colour(image: Image, places: Points) -> Points:
    height, width = image.shape[:2]
    x = np.clip(np.round(places[:, 0]), 0, width - 1).astype(np.intp)
    y = np.clip(np.round(places[:, 1]), 0, height - 1).astype(np.intp)
    return np.asarray(image[y, x].mean(axis=0), np.float64)
