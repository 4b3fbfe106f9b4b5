"""Average linkage over alike pairs is that over all pairs, keeps apart what must be, and counts evidence."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from pipeline.people import groups, search
from pipeline.people.groups import NO_UNIT, Evidence, group
from pipeline.people.search import Pairs, TooManyPairs, similar_pairs

NOTHING = np.zeros((0, 2), np.int64)


def cloud(seed: int, count: int, persons: int, spread: float, dimensions: int = 16) -> NDArray[np.float32]:
    """Unit vectors around some centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(persons, dimensions))
    vectors = centres[rng.integers(0, persons, count)] + spread * rng.normal(size=(count, dimensions))
    return unit(vectors)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def grouped(
    vectors: NDArray[np.float32],
    least: float,
    apart: NDArray[np.int64] = NOTHING,
    units: NDArray[np.int64] | None = None,
    bonus: float = 0.0,
) -> NDArray[np.int64]:
    nowhere = np.full(len(vectors), NO_UNIT)
    evidence = Evidence(nowhere if units is None else units, bonus, apart)
    pairs = similar_pairs(vectors, least - bonus)
    return group(vectors, pairs.first, pairs.second, least, evidence)


def together(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    return labels[:, None] == labels[None]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(2, 120), st.integers(1, 20), st.floats(0.2, 1.2), st.floats(0.1, 0.9)
)
def test_it_equals_average_linkage_over_the_matrix_of_all_pairs(
    seed: int, count: int, persons: int, spread: float, least: float
) -> None:
    vectors = cloud(seed, count, persons, spread)
    distances = 1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(distances, 0)
    expected = fcluster(linkage(squareform(distances, checks=False), "average"), 1 - least, "distance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "CERTAINTY", 0.0)
        assert (together(grouped(vectors, least)) == together(expected)).all()


def test_large_groups_must_be_more_alike_than_two_identities() -> None:
    assert groups.least_mean(0.6, np.array([1, 4, 10_000])).tolist() == pytest.approx([0.6, 0.615, 0.6297])
    rng = np.random.default_rng(0)
    centres = unit(np.array([[1.0, 0.0], [0.61, np.sqrt(1 - 0.61**2)]]))
    around = np.concatenate([np.repeat(centres, 20, axis=0), np.zeros((40, 1))], axis=1)
    vectors = unit(around + np.concatenate([np.zeros((40, 2)), 1e-3 * rng.normal(size=(40, 1))], axis=1))
    assert len(set(grouped(vectors[[0, 20]], 0.6))) == 1
    assert len(set(grouped(vectors, 0.6))) == 2


def test_a_chain_of_look_alikes_is_not_one_group() -> None:
    degrees = np.radians(np.arange(0, 360, 20.0))
    circle = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    labels = grouped(circle, np.cos(np.radians(25)))
    assert max(np.bincount(labels)) == 2  # single linkage joins all 18


def test_a_group_is_named_by_its_first_row() -> None:
    vectors = cloud(3, 200, 30, 0.5)
    labels = grouped(vectors, 0.6)
    assert all(np.flatnonzero(labels == label)[0] == label for label in np.unique(labels))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 4), st.data())
def test_what_is_apart_is_never_in_one_group(
    seed: int, count: int, persons: int, data: st.DataObject
) -> None:
    vectors = cloud(seed, count, persons, 0.4)
    row = st.integers(0, count - 1)
    drawn = data.draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=40))
    apart = np.array(drawn, dtype=np.int64).reshape(-1, 2)
    labels = grouped(vectors, 0.4, apart)
    assert not (labels[apart[:, 0]] == labels[apart[:, 1]]).any()


def test_two_who_are_seen_at_once_pull_their_other_clips_apart() -> None:
    # Twins: all four alike, 0 and 1 in one frame.
    vectors = unit(np.array([[1, 0.0, 0.1], [1, 0.1, 0.0], [1, 0.0, 0.12], [1, 0.12, 0.0]]))
    labels = grouped(vectors, 0.5, np.array([[1, 0]]))
    assert labels.tolist() == [0, 1, 0, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 80), st.floats(0.0, 0.3))
def test_the_mean_score_of_every_group_reaches_the_threshold_and_no_two_groups_could_be_joined(
    seed: int, count: int, bonus: float
) -> None:
    vectors = cloud(seed, count, 8, 0.7)
    units = np.random.default_rng(seed).integers(-1, 5, count)
    least = 0.5
    labels = grouped(vectors, least, units=units, bonus=bonus)
    same = (units[:, None] == units) & (units[:, None] != NO_UNIT)
    scores = vectors.astype(np.float64) @ vectors.T + bonus * same
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for a, b in combinations(members, 2):
        assert scores[np.ix_(a, b)].mean() < groups.least_mean(least, np.array(len(a) * len(b))) + 1e-5
    for rows in members:
        if len(rows) > 1:
            pairs = scores[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
            assert pairs.mean() >= least - 1e-5


def test_one_origin_needs_less_likeness() -> None:
    vectors = unit(np.array([[1, 0.0], [0.6, 0.8], [0.6, -0.8]]))  # cosines .6, .6, -.28
    assert grouped(vectors, 0.7).tolist() == [0, 1, 2]
    assert grouped(vectors, 0.7, units=np.array([4, 4, NO_UNIT]), bonus=0.2).tolist() == [0, 0, 2]


def test_equal_vectors_are_one_group_whatever_their_number() -> None:
    vectors = np.repeat(unit(np.array([[1.0, 2.0], [-2.0, 1.0]])), 40, axis=0)
    assert np.bincount(grouped(vectors, 0.99))[[0, 40]].tolist() == [40, 40]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 70), st.floats(-0.9, 0.95), st.integers(1, 9), st.integers(1, 9))
def test_the_search_finds_the_pairs_that_the_matrix_has(
    seed: int, count: int, least: float, rows: int, columns: int
) -> None:
    vectors = cloud(seed, count, 5, 0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ROWS", rows)
        patch.setattr(search, "COLUMNS", columns)
        found = similar_pairs(vectors, least)
    cosines = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).round(search.DECIMALS)
    expected = np.argwhere(np.triu(cosines.astype(np.float32) >= np.float32(least), k=1))
    assert np.stack([found.first, found.second], axis=1).tolist() == expected.tolist()
    assert np.array_equal(found.cosine, cosines[tuple(expected.T)].astype(np.float32))


def test_a_threshold_that_all_pairs_reach_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MOST_PAIRS", 1000)
    with pytest.raises(TooManyPairs, match="1,000 of 4,950 pairs have a cosine of -1 or more"):
        similar_pairs(cloud(0, 100, 5, 0.5), -1.0)


def test_pairs_below_a_threshold_are_left_out() -> None:
    vectors = cloud(1, 50, 5, 0.6)
    assert np.array_equal(similar_pairs(vectors, 0.3).at_least(0.6).first, similar_pairs(vectors, 0.6).first)
    assert len(Pairs.of(vectors, np.zeros(0, np.int32), np.zeros(0, np.int32))) == 0
