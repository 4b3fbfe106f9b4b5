"""The resolution gate: what is known of a face's size before landmarks, and which gate eight frames pass."""

from __future__ import annotations

from faces.crop import CROP_SCALE
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
