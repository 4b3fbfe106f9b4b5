"""Which images are inputs and targets, and which noise images start from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import TrainingError
from training.evaluate.protocol import noise_seed, parse_inputs, roles

KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
NUMBERS = st.sets(st.integers(1, 7), min_size=1).map(sorted)


@given(KEYS, NUMBERS)
def test_inputs_are_nested_and_no_target_is_ever_an_input(key: str, inputs: list[int]) -> None:
    found = roles(key, inputs)
    assert len(found.inputs) == inputs[-1]
    assert sorted([*found.inputs, *found.targets]) == list(range(8))
    assert found.targets == tuple(sorted(found.targets))
    assert roles(key, inputs[-1:]) == found  # smaller numbers of inputs are prefixes and change nothing


@given(KEYS, st.integers(1, 4), st.sets(st.integers(0, 7), min_size=5))
def test_only_images_that_may_have_a_role_have_one(key: str, most: int, images: set[int]) -> None:
    found = roles(key, [most], sorted(images))
    assert {*found.inputs, *found.targets} == images
    assert len(found.inputs) == most


@given(KEYS)
def test_the_permutation_does_not_depend_on_the_number_of_inputs(key: str) -> None:
    longest = roles(key, [7]).inputs
    assert all(roles(key, [most]).inputs == longest[:most] for most in range(1, 8))


def test_too_few_images_for_inputs_and_a_target_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 images are too few for 3 inputs"):
        roles("key", [3], [0, 1, 2])


@given(st.lists(st.tuples(KEYS, st.integers(0, 7), st.integers(0, 3)), min_size=2, max_size=2, unique=True))
def test_seeds_fit_64_bits_and_differ_between_images(places: list[tuple[str, int, int]]) -> None:
    one, other = (noise_seed(*place) for place in places)
    assert one != other
    assert -(2**63) <= one < 2**63
    assert noise_seed(*places[0]) == one


def test_numbers_of_inputs_are_sorted_and_each_once() -> None:
    assert parse_inputs("5,1,3,1") == (1, 3, 5)


@pytest.mark.parametrize("text", ["", "one", "0,3", "1;3", "-1"])
def test_other_texts_are_no_numbers_of_inputs(text: str) -> None:
    with pytest.raises(TrainingError, match="--inputs: expected whole numbers such as 1,3,5"):
        parse_inputs(text)


def test_eight_inputs_leave_no_target() -> None:
    with pytest.raises(TrainingError, match=r"8 inputs leave no target.*at most 7"):
        parse_inputs("1,8")
