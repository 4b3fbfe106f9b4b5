"""Who stands in for whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.evaluate.partners import partners


def test_the_next_one_stands_in_and_the_circle_is_closed() -> None:
    assert partners(["a", "b", "c"]) == [1, 2, 0]


def test_identities_of_the_same_person_are_passed_over() -> None:
    assert partners(["a", "a", "b", "a", "c"]) == [2, 2, 3, 4, 0]


def test_one_person_alone_has_no_partner() -> None:
    assert partners(["a", "a"]) == [None, None]
    assert partners(["a"]) == [None]
    assert partners([]) == []


@given(st.lists(st.sampled_from("abcd")))
def test_a_partner_is_another_person_and_there_is_one_whenever_there_can_be(persons: list[str]) -> None:
    for place, partner in enumerate(partners(persons)):
        if partner is None:
            assert set(persons) == {persons[place]}
        else:
            assert persons[partner] != persons[place]


@given(st.sets(st.integers(), min_size=2))
def test_where_all_persons_differ_everyone_stands_in_once(numbers: set[int]) -> None:
    chosen = partners([str(number) for number in sorted(numbers)])
    assert sorted(place for place in chosen if place is not None) == list(range(len(numbers)))
