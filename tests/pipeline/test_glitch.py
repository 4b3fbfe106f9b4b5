"""A pose of one frame that no head can have had is a glitch; a turn of the head is none."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stages.glitch import glitches


def found(yaws: list[float], gaps: tuple[int, ...] = ()) -> list[int]:
    """Rows of glitches; each row in `gaps` begins another shot."""
    points = np.array([(yaw, 0.0, 0.0) for yaw in yaws]).reshape(-1, 3)
    near = np.array([row not in gaps for row in range(1, len(yaws))], dtype=bool)
    return np.flatnonzero(glitches(points, near)).tolist()


def test_one_far_pose_between_two_near_ones_is_a_glitch() -> None:
    assert found([0, 1, 2, 30, 3, 4]) == [3]


def test_a_pose_held_for_two_frames_is_a_pose() -> None:
    assert found([0, 1, 2, 30, 31, 3, 4]) == []


def test_a_fast_turn_is_no_glitch() -> None:
    assert found([0, 15, 30, 45, 60, 45, 30, 15, 0]) == []


@pytest.mark.parametrize(("yaws", "rows"), [([40, 1, 2, 3], [0]), ([1, 2, 3, 40], [3]), ([14, 1, 2], [])])
def test_a_far_pose_at_an_end_is_a_glitch(yaws: list[float], rows: list[int]) -> None:
    assert found(yaws) == rows


def test_the_end_beside_a_glitch_is_none_itself() -> None:
    assert found([0, 40, 1, 2]) == [1]


def test_another_shot_is_no_neighbour() -> None:
    assert found([0, 1, 2, 30, 31, 32], gaps=(3,)) == []
    assert found([0, 1, 2, 60, 3], gaps=(3, 4)) == []
    assert found([0, 0, 0, 0, 50, 75, 10, 10, 10], gaps=(4, 6)) == []


def test_of_two_frames_alone_neither_is_a_glitch() -> None:
    assert found([0, 40]) == []


def test_short_tracks_have_none() -> None:
    assert found([]) == []
    assert found([5]) == []
    assert found([5, 6]) == []
