"""The measures, as functions of arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.evaluate import measures

ANGLES = st.floats(-180, 180)
POSES = arrays(np.float64, (4, 3), elements=ANGLES)
SEEDS = st.integers(0, 2**32 - 1)


def units(seed: int, count: int, channels: int = 8) -> measures.Floats:
    rows = np.random.default_rng(seed).normal(size=(count, channels))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@given(SEEDS)
def test_similarity_is_the_mean_cosine_of_all_pairs_and_images_without_a_face_count_as_0(seed: int) -> None:
    generated, targets = units(seed, 4), units(seed + 1, 3)
    pairs = [float(one @ other) for one in generated for other in targets]
    assert measures.similarity(generated, targets) == pytest.approx(np.mean(pairs))
    without = generated * np.array([[1], [0], [0], [0]])
    assert measures.similarity(without, targets) == pytest.approx(sum(pairs[:3]) / 12)


@given(SEEDS, st.booleans())
def test_copy_paste_is_1_for_the_input_and_minus_1_for_the_truth(seed: int, nearest: bool) -> None:
    truth, given_ = units(seed, 1), units(seed + 1, 1)
    assert measures.copy_paste(given_, given_, truth, nearest=nearest) == pytest.approx(1)
    assert measures.copy_paste(truth, given_, truth, nearest=nearest) == pytest.approx(-1)
    between = truth + given_
    between /= np.linalg.norm(between)
    assert measures.copy_paste(between, given_, truth, nearest=nearest) == pytest.approx(0, abs=1e-9)


@given(SEEDS, st.integers(1, 5), st.booleans())
def test_copy_paste_is_bounded_and_changes_its_sign_with_the_roles(
    seed: int, inputs: int, nearest: bool
) -> None:
    generated, given_, truth = units(seed, 3), units(seed + 1, inputs), units(seed + 2, 2)
    found = measures.copy_paste(generated, given_, truth, nearest=nearest)
    assert found is not None
    assert -1 <= found <= 1
    swapped = measures.copy_paste(generated, truth, given_)
    assert measures.copy_paste(generated, given_, truth) == pytest.approx(-swapped)  # type: ignore[operator]


@given(SEEDS)
def test_the_copy_of_one_of_several_inputs_shows_by_the_nearest_input(seed: int) -> None:
    given_, truth = units(seed, 5), units(seed + 1, 2)
    copies = given_[[2]]
    assert measures.copy_paste(copies, given_, truth, nearest=True) == pytest.approx(1)
    mean = measures.copy_paste(copies, given_, truth)
    assert mean is not None
    assert mean < 0.95


def test_copy_paste_of_nothing_is_unknown_and_of_a_repeated_photograph_finite() -> None:
    none, one = np.zeros((0, 8)), units(0, 1)
    assert measures.copy_paste(none, one, one) is None
    assert measures.copy_paste(one, none, one) is None
    assert measures.copy_paste(one, one, one, counted_GT=np.zeros((1, 1), bool)) is None
    assert measures.copy_paste(units(1, 1), one, one) == 0


@given(SEEDS)
def test_angles_are_those_of_arccos(seed: int) -> None:
    one, other = units(seed, 3), units(seed + 1, 4)
    assert measures.angles(one, other) == pytest.approx(np.arccos(np.clip(one @ other.T, -1, 1)), abs=1e-6)


@given(POSES, POSES)
def test_pose_error_is_a_distance_and_does_not_change_in_a_mirror(
    one: measures.Floats, other: measures.Floats
) -> None:
    error = measures.pose_error(one, other)
    assert (error >= 0).all()
    assert (error <= 540 + 1e-9).all()
    assert error == pytest.approx(measures.pose_error(other, one))
    assert error == pytest.approx(
        measures.pose_error(measures.mirrored(one), measures.mirrored(other)), abs=1e-9
    )
    assert (measures.pose_error(one, one) == 0).all()
    assert (measures.mirrored(measures.mirrored(one)) == one).all()


def test_pose_error_sums_the_three_angles_and_goes_the_short_way_round() -> None:
    one, other = np.array([[10.0, -5.0, 175.0]]), np.array([[-20.0, 5.0, -175.0]])
    assert measures.pose_error(one, other) == pytest.approx([30 + 10 + 10])


@given(SEEDS, st.integers(2, 6))
def test_similarity_to_others_is_the_mean_over_all_pairs_with_other_people(seed: int, people: int) -> None:
    images = [units(seed + person, 2) for person in range(people)]
    targets = [units(seed + 100 + person, 3) for person in range(people)]
    found = measures.similarity_to_others(
        np.stack([own.mean(axis=0) for own in images]), np.stack([own.mean(axis=0) for own in targets])
    )
    for person in range(people):
        pairs = [
            measures.similarity(images[person], targets[other]) for other in range(people) if other != person
        ]
        assert found[person] == pytest.approx(np.mean(pairs))


def test_nearest_to_own_needs_more_than_any_other_and_no_tie() -> None:
    targets = np.eye(3)
    assert measures.nearest_to_own(np.eye(3), targets).tolist() == [1, 1, 1]
    assert measures.nearest_to_own(np.roll(np.eye(3), 1, axis=0), targets).tolist() == [0, 0, 0]
    assert measures.nearest_to_own(np.zeros((3, 3)), targets).tolist() == [0, 0, 0]
