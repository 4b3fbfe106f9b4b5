"""The face mask and its file form."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from faces.landmarks import FACE_OVAL, LANDMARKS
from faces.mask import encode_mask_png, face_mask, face_triangles
from faces.types import Floats


def round_face(side: int, radius: float) -> Floats:
    """Landmarks with a circle in the middle as their outline."""
    points = np.full((LANDMARKS, 3), side / 2, np.float32)
    turn = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[FACE_OVAL, 0] += (radius * np.sin(turn)).astype(np.float32)
    points[FACE_OVAL, 1] -= (radius * np.cos(turn)).astype(np.float32)
    return points


def test_the_mask_is_white_inside_the_outline_and_black_outside() -> None:
    mask = face_mask(round_face(512, 100), 512)
    assert mask.shape == (512, 512)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert mask[256, 256] == mask[256, 160] == mask[170, 256] == 255
    assert mask[256, 150] == mask[150, 256] == mask[180, 180] == 0
    assert (mask > 0).sum() == pytest.approx(np.pi * 100**2, rel=0.03)


def test_an_outline_that_leaves_the_crop_is_cut_at_its_border() -> None:
    mask = face_mask(round_face(64, 200), 64)
    assert (mask == 255).all()


def test_landmarks_without_depth_give_the_same_mask() -> None:
    points = round_face(128, 40)
    assert (face_mask(points, 128) == face_mask(points[:, :2], 128)).all()


def test_the_surface_of_the_face_has_no_edge_but_its_outline() -> None:
    triangles = face_triangles()
    edges = np.sort(triangles[:, [(0, 1), (1, 2), (2, 0)]].reshape(-1, 2), axis=1)
    uses = Counter(map(tuple, edges.tolist()))
    outline = np.sort(np.stack([FACE_OVAL, np.roll(FACE_OVAL, -1)], axis=1), axis=1)
    assert set(uses.values()) == {1, 2}
    assert {edge for edge, number in uses.items() if number == 1} == set(map(tuple, outline.tolist()))


def test_importing_the_mask_does_not_import_the_landmarker() -> None:
    statement = "import sys, faces.mask; sys.exit('mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", statement], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(468, 3), (478, 4), (478,)])
def test_other_than_478_points_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs"):
        face_mask(np.zeros(shape, np.float32), 64)


def test_points_that_are_not_numbers_are_rejected() -> None:
    points = round_face(64, 20)
    points[10, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        face_mask(points, 64)


def test_the_png_reads_back_as_the_mask_in_both_usual_libraries() -> None:
    mask = face_mask(round_face(512, 150), 512)
    data = encode_mask_png(mask)
    assert len(data) < 2000
    assert (np.array(PillowImage.open(io.BytesIO(data)).convert("L")) == mask).all()
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == mask).all()
    assert encode_mask_png(mask) == data


def test_a_grey_mask_is_rejected() -> None:
    with pytest.raises(ValueError, match="0 and 255"):
        encode_mask_png(np.full((8, 8), 128, np.uint8))
