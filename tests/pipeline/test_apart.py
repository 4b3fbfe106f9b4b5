"""Points far apart: as far as sampling says, and found wherever there are enough."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from test_select import COARSE, POSES, Rows

from pipeline.stages.apart import farthest_points, points_apart


@given(POSES)
def test_farthest_points_are_at_least_half_as_far_apart_as_any_eight_can_be(poses: Rows) -> None:
    points = np.array(poses)
    picked, separation = farthest_points(points, 8)
    if len(points) < 8:
        assert separation == 0
        return
    assert len(picked) == 8
    assert separation == pytest.approx(pdist(points[picked]).min())
    # Eight points further apart than twice that would need eight of these balls; there are seven.
    to_picked = np.linalg.norm(points[:, None] - points[picked[:7]], axis=2).min(axis=1)
    assert to_picked.max() <= separation + 1e-9


def test_of_equal_points_each_is_picked_once() -> None:
    assert sorted(farthest_points(np.zeros((8, 3)), 8)[0]) == list(range(8))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(COARSE, COARSE, st.just(0.0)), min_size=1, max_size=12),
    st.integers(2, 4),
    st.sampled_from([0.0, 1.0, 3.0, 5.0]),
)
def test_points_are_found_exactly_where_trying_all_sets_finds_some(
    poses: Rows, count: int, least: float
) -> None:
    points = np.array(poses)
    found = points_apart(points, count, least)
    best = max((pdist(points[list(s)]).min() for s in combinations(range(len(points)), count)), default=-1)
    assert (found is not None) == (best >= least - 1e-9)
    if found is not None:
        assert len(set(found)) == count
        assert pdist(points[found]).min() >= least - 1e-8


@pytest.mark.parametrize("seed", range(20))
def test_eight_of_four_hundred_points_are_found_where_sampling_misses_them(seed: int) -> None:
    """The corners of a cube of 10 degrees, among points in the middle of it."""
    rng = np.random.default_rng(seed)
    corners = np.array([[x, y, z] for x in (0, 10) for y in (0, 10) for z in (0, 10)], dtype=float)
    points = rng.permutation(np.concatenate([corners, rng.normal(5, 1, (392, 3))]))
    found = points_apart(points, 8, 10)
    assert found is not None
    assert pdist(points[found]).min() >= 10 - 1e-9
