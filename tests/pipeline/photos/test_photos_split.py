"""Who is held out: by the seed and the name alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.photos.config import PhotoSplit
from pipeline.photos.split import draw, held_out

NAMES = st.sets(st.text(min_size=1, max_size=8), max_size=40)


@given(NAMES, st.text(min_size=1, max_size=8), st.floats(0, 1), st.integers(0, 9))
def test_another_person_moves_nobody_where_a_fraction_is_held_out(
    people: set[str], one_more: str, fraction: float, seed: int
) -> None:
    config = PhotoSplit(test_fraction=fraction, seed=seed)
    test = held_out(people, config)
    assert test <= people
    assert held_out(people | {one_more}, config) - {one_more} == test - {one_more}


@given(NAMES, st.text(min_size=1, max_size=8), st.integers(0, 20))
def test_a_number_of_people_is_exact_and_one_more_person_replaces_one_at_most(
    people: set[str], one_more: str, number: int
) -> None:
    config = PhotoSplit(test_people=number)
    test = held_out(people, config)
    assert len(test) == min(number, len(people))
    assert len(test - held_out(people | {one_more}, config)) <= 1


def test_the_draw_is_uniform_and_another_seed_draws_others() -> None:
    names = [f"person {number}" for number in range(4000)]
    draws = [draw(name, 0) for name in names]
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1
    share = len(held_out(names, PhotoSplit(test_fraction=0.1))) / len(names)
    assert abs(share - 0.1) < 0.02
    assert held_out(names, PhotoSplit(test_people=9)) != held_out(names, PhotoSplit(test_people=9, seed=1))
