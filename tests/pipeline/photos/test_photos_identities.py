"""Identities of a person: eight images each, the best of their candidates; and who counts as another person."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.photos.config import PhotoPeople
from pipeline.photos.identities import eights, typical_cosines
from shards.schema import IMAGES_PER_IDENTITY, Quality

SCORES = st.lists(st.floats(0, 100), max_size=70)


def qualities(values: list[float], *, higher_is_better: bool) -> list[Quality]:
    return [Quality(metric="m", value=value, higher_is_better=higher_is_better) for value in values]


@given(SCORES, st.booleans(), st.none() | st.integers(1, 5))
def test_every_photograph_is_a_candidate_of_one_identity_and_the_best_eight_are_chosen(
    values: list[float], higher_is_better: bool, most: int | None
) -> None:
    found = eights(qualities(values, higher_is_better=higher_is_better), PhotoPeople(max_identities=most))
    expected = len(values) // IMAGES_PER_IDENTITY
    assert len(found) == (expected if most is None else min(expected, most))
    if found:
        assert sorted(place for each in found for place in each.candidates) == list(range(len(values)))
    for each in found:
        places = [place for _, place in each.chosen]
        assert len(places) == IMAGES_PER_IDENTITY
        assert places == sorted(set(places))
        assert set(places) <= set(each.candidates)
        left = [values[place] for place in each.candidates if place not in places]
        chosen = [values[place] for place in places]
        if left:
            assert min(chosen) >= max(left) if higher_is_better else max(chosen) <= min(left)


@given(SCORES, st.integers(1, 8))
def test_repetitions_fill_an_identity_only_for_those_who_have_too_few(
    values: list[float], fill_from: int
) -> None:
    given_ = qualities(values, higher_is_better=True)
    found = eights(given_, PhotoPeople(fill_from=fill_from))
    if len(values) >= IMAGES_PER_IDENTITY:
        assert found == eights(given_, PhotoPeople())
        return
    assert len(found) == (len(values) >= fill_from)
    for each in found:
        assert len(each.chosen) == IMAGES_PER_IDENTITY
        # Ascending, so that no frame comes twice where a round is as long as the list of photographs.
        assert all(before < after for before, after in pairwise(each.chosen))
        assert {place for _, place in each.chosen} == set(range(len(values)))


def test_an_identity_spans_all_photographs() -> None:
    first, second = eights(qualities([1.0] * 16, higher_is_better=True), PhotoPeople())
    assert [place for _, place in first.chosen] == list(range(0, 16, 2))
    assert [place for _, place in second.chosen] == list(range(1, 16, 2))


def test_a_stranger_among_the_photographs_of_a_person_is_far_from_the_typical_face() -> None:
    draw = np.random.default_rng(0)
    person, stranger = draw.normal(size=(2, 128))
    faces = np.stack([person + 0.5 * draw.normal(size=128) for _ in range(9)] + [stranger])
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    cosines = typical_cosines(faces.astype(np.float32))
    assert cosines[:9].min() > 0.6
    assert cosines[9] < 0.3
    assert typical_cosines(faces[:1].astype(np.float32)).shape == (1,)
