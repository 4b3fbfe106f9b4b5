"""The resolution gate: what is known of a face's size before landmarks, and which gate eight frames pass."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from faces.crop import CROP_SCALE, square_for
from faces.landmarks import FaceLandmarker
from faces.profiles import load_detector
from faces.registry import load_weights
from faces.types import Detector, Image
from pipeline.decode.frames import decode
from pipeline.decode.plan import plan_frames
from pipeline.decode.probe import Probe, probe
from pipeline.stages.gate import eighth_largest, largest_crop


def test_eight_frames_pass_the_eighth_largest_size() -> None:
    assert eighth_largest([100.0, *range(300, 307), 50.0]) == 100.0
    assert eighth_largest([312, 448, None] * 4) == 312


def test_seven_measured_frames_pass_no_gate() -> None:
    assert eighth_largest([500.0] * 7 + [None] * 20) is None


def test_a_size_is_rounded_down_so_that_it_passes_no_gate_it_did_not_pass() -> None:
    assert eighth_largest([447.99] * 8) == 447.9


def test_no_crop_is_larger_than_its_frame() -> None:
    assert largest_crop(500.0, 1920, 300, CROP_SCALE) == 300
    assert largest_crop(500.0, 400, 1080, CROP_SCALE) == 400


@pytest.fixture(scope="module")
def networks() -> tuple[Detector, FaceLandmarker]:
    weights = load_weights(["yunet", "face_landmarker"], None)
    detector = load_detector("yunet", weights, size=480, min_score=0.6)
    return detector, FaceLandmarker(weights["face_landmarker"].path)


def bound_and_side(networks: tuple[Detector, FaceLandmarker], image: Image) -> list[tuple[float, int]]:
    """The bound before landmarks and the side after them, of each face with landmarks."""
    detector, landmarker = networks
    height, width = image.shape[:2]
    found = [(face, landmarker.find(image, face.box)) for face in detector.detect(image)]
    return [
        (
            largest_crop(face.face_px, width, height, CROP_SCALE),
            square_for(landmarks.points, width, height, CROP_SCALE).side,
        )
        for face, landmarks in found
        if landmarks is not None
    ]


@pytest.mark.parametrize("roll", range(-90, 91, 30))
def test_no_crop_is_larger_than_its_bound_however_the_head_is_tilted(
    networks: tuple[Detector, FaceLandmarker], roll: int
) -> None:
    from skimage import data

    turn = cv2.getRotationMatrix2D((225, 120), roll, 1)
    turn[:, 2] += (256 - 225, 256 - 120)
    tilted = np.asarray(cv2.warpAffine(data.astronaut(), turn, (512, 512)), np.uint8)
    ((bound, side),) = bound_and_side(networks, tilted)
    assert side <= 0.9 * bound


@pytest.mark.clips
@pytest.mark.slow
def test_no_crop_of_a_real_clip_is_larger_than_its_bound(
    networks: tuple[Detector, FaceLandmarker], clips: Path
) -> None:
    pairs = []
    for path in sorted(clips.glob("*.*")):
        found = probe(path)
        if isinstance(found, Probe):
            planned = plan_frames(found.times_s, 0.3, 400)
            for frame in decode(path, found, planned, "decord"):
                pairs += bound_and_side(networks, frame.image)
    assert len(pairs) > 100
    assert [(bound, side) for bound, side in pairs if side > bound] == []
