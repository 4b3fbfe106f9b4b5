"""Which identity is the mismatched one of which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.evaluate.mismatched import mismatched


def test_the_next_one_is_taken_and_the_last_takes_the_first() -> None:
    assert mismatched(["a", "b", "c"]) == [1, 2, 0]


def test_identities_of_the_same_person_are_passed_over() -> None:
    assert mismatched(["a", "a", "b", "a", "c"]) == [2, 2, 3, 4, 0]


def test_one_person_alone_has_no_mismatched_identity() -> None:
    assert mismatched(["a", "a"]) == [None, None]
    assert mismatched(["a"]) == [None]
    assert mismatched([]) == []


@given(st.lists(st.sampled_from("abcd")))
def test_it_is_another_person_s_and_there_is_one_whenever_there_can_be(persons: list[str]) -> None:
    for place, other in enumerate(mismatched(persons)):
        if other is None:
            assert set(persons) == {persons[place]}
        else:
            assert persons[other] != persons[place]


@given(st.sets(st.integers(), min_size=2))
def test_where_all_persons_differ_each_is_taken_once(numbers: set[int]) -> None:
    chosen = mismatched([str(number) for number in sorted(numbers)])
    assert sorted(place for place in chosen if place is not None) == list(range(len(numbers)))
