"""Linking counts where and when identities were filmed, and stops when a person grows beyond all reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from identity_rows import PEOPLE, identity, table
from pydantic import ValidationError

from pipeline.config import People
from pipeline.errors import BuildError
from pipeline.people import search
from pipeline.people.evidence import Indices, seen_at_once, units
from pipeline.people.link import alike, link
from pipeline.people.near_threshold import near_threshold
from pipeline.people.search import Pairs
from pipeline.people.summary import Collector, embeddings


def persons(rows: list[dict[str, Any]], people: People = PEOPLE) -> dict[str, int]:
    """The person of each key."""
    summary = table(rows)
    return dict(zip(summary["key"].to_pylist(), linked(summary, people)[1].tolist(), strict=True))


def linked(summary: pa.Table, people: People = PEOPLE) -> tuple[Pairs, Indices]:
    """The alike pairs, and the person of each row."""
    vectors = embeddings(summary)
    pairs = alike(summary, vectors, people)
    return pairs, link(summary, vectors, pairs, people)


def test_identities_that_are_alike_are_one_person_and_others_are_not() -> None:
    assert persons([identity("a"), identity("b", degrees=50), identity("c", degrees=140)]) == {
        "a_00": 0,
        "b_00": 0,
        "c_00": 2,
    }


def test_a_chain_is_not_followed() -> None:
    assert (
        len(set(persons([identity(name, degrees=50.0 * n) for n, name in enumerate("abcd")]).values())) == 2
    )


def test_no_identities_are_no_persons() -> None:
    assert len(linked(Collector().summary())[1]) == 0


def test_one_origin_needs_less_likeness_and_another_label_of_its_dataset_takes_that_away() -> None:
    rows = [identity("a", origin="x"), identity("b", degrees=65, origin="x")]  # a cosine of .42
    assert len(set(persons(rows).values())) == 1
    assert len(set(persons([row | {"origin": None} for row in rows]).values())) == 2
    labels = [row | {"source_person": label} for row, label in zip(rows, ("P0", "P1"), strict=True)]
    assert len(set(persons(labels).values())) == 2
    same = [row | {"source_person": "P0"} for row in rows]
    assert len(set(persons(same).values())) == 1


def test_a_threshold_for_one_origin_above_the_other_is_an_error() -> None:
    with pytest.raises(ValidationError, match=r"same_origin_cosine: 0\.9 is above link_cosine 0\.5"):
        People(link_cosine=0.5, same_origin_cosine=0.9)


def test_faces_in_one_frame_are_two_persons() -> None:
    rows = [
        identity("a", 0, seen_with=[1]),
        identity("a", 1, degrees=5, seen_with=[0]),
        identity("b", degrees=1),
    ]
    found = persons(rows)
    assert found["a_00"] != found["a_01"]
    assert found["b_00"] == found["a_00"]


def cut(start: float, end: float, box: list[float], **facts: Any) -> dict[str, Any]:
    return {
        "origin": "x",
        "cut_file": "x",
        "cut_unit": "s",
        "cut_start": start,
        "cut_end": end,
        "cut_box": box,
    } | facts


LEFT, RIGHT = [0.0, 0.1, 0.4, 0.6], [0.5, 0.1, 0.9, 0.6]


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        (cut(0, 5, LEFT), cut(1, 6, RIGHT), True),
        (cut(0, 5, LEFT), cut(1, 6, LEFT), False),
        (cut(0, 5, LEFT), cut(4, 9, RIGHT), False),  # a fifth of their time: cut times are rounded
        (cut(0, 5, LEFT), cut(5, 9, RIGHT), False),
        (cut(0, 60, LEFT), cut(20, 22, RIGHT), True),
        (cut(0, 5, LEFT), cut(1, 6, RIGHT, origin="y"), False),
        (cut(0, 5, LEFT), cut(1, 6, RIGHT, cut_file="x_0001"), False),
        (cut(0, 5, LEFT), cut(1, 6, RIGHT, cut_unit="frames"), False),
        (cut(0, 5, LEFT), cut(1, 6, [900.0, 10, 1200, 500]), False),  # fractions and pixels
        (cut(0, 5, [0.0, 0, 400, 500]), cut(1, 6, [900.0, 10, 1200, 500]), True),
        (cut(0, 5, LEFT), cut(1, 6, RIGHT, cut_box=None), False),
    ],
)
def test_cuts_of_one_file_at_one_time_in_two_places_are_two_persons(
    first: dict[str, Any], second: dict[str, Any], apart: bool
) -> None:
    rows = [identity("a", **first), identity("b", degrees=3, **second)]
    assert seen_at_once(table(rows)).tolist() == ([[0, 1]] if apart else [])
    assert (len(set(persons(rows).values())) == 2) is apart


def test_units_are_origins_with_their_labels() -> None:
    rows = [
        identity("a"),
        identity("b", origin="x"),
        identity("c", origin="x", source_person="P0"),
        identity("d", origin="x", source_person="P0"),
        identity("e", origin="y", source_person="P0"),
    ]
    assert units(table(rows)).tolist() == [-1, 0, 1, 1, 2]


def test_a_person_in_too_many_videos_stops_the_build() -> None:
    people = PEOPLE.model_copy(update={"max_person_videos": 3})
    rows = [identity(f"v{n}", degrees=n) for n in range(4)] + [identity("z", degrees=120)]
    with pytest.raises(BuildError) as error:
        persons(rows, people)
    assert (
        "one person would be in 4 videos (those of one origin count as one), with 4 of 5 identities"
        in str(error.value)
    )
    assert "such as v0_00, v1_00, v2_00" in str(error.value)
    assert "raise people.link_cosine=0.5" in str(error.value)
    # Many clips of one origin are no reason for an alarm.
    assert len(set(persons([row | {"origin": "x"} for row in rows[:4]] + rows[4:], people).values())) == 2


def test_a_threshold_that_separates_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PAIRS", 10)
    with pytest.raises(
        BuildError, match=r"people\.same_origin_cosine=-1 link too much: more than 10 of 15 pairs"
    ):
        persons(
            [identity(f"v{n}", degrees=60.0 * n) for n in range(6)],
            People(link_cosine=-1, same_origin_cosine=-1),
        )


def test_the_pairs_nearest_to_the_threshold_are_found_on_both_sides_once_for_two_persons() -> None:
    rows = [
        *(identity("a", 0), identity("b", 0, 40), identity("c", 0, 20)),  # one person; the least cosine .77
        identity("d", 0, 101),  # .485 to b, of another person
        identity("e", 0, 102),  # .469 to b, of the same person as d
        *(identity("f", 0, 200, seen_with=[1]), identity("f", 1, 230, seen_with=[0])),  # in one frame
    ]
    summary = table(rows)
    pairs, person = linked(summary)
    kept = set(summary["key"].to_pylist())
    found = near_threshold(summary, pairs, person, PEOPLE, kept)
    joined, apart, rejected = (
        [(pair.first, pair.second, pair.cosine) for pair in found[kind]]
        for kind in ("linked", "apart", "rejected")
    )
    assert joined == [("a_00", "b_00", 0.766), ("d_00", "e_00", 0.9998)]
    assert apart == [("b_00", "d_00", 0.4848)]
    assert rejected == [("f_00", "f_01", 0.866)]
    found = near_threshold(summary, pairs, person, PEOPLE, kept - {"d_00"})
    assert [(pair.first, pair.second) for pair in found["apart"]] == [("b_00", "e_00")]


def test_embeddings_of_two_networks_are_not_compared() -> None:
    rows = [identity("a"), identity("b", embedding=[1.0, 0.0, 0.0])]
    with pytest.raises(ValueError, match=r"embeddings of \[2, 3\] dimensions"):
        embeddings(table(rows))
    assert np.allclose(np.linalg.norm(embeddings(table([identity("a", embedding=[3.0, 4.0])])), axis=1), 1)


def test_pairs_of_one_origin_are_judged_by_their_own_threshold() -> None:
    rows = [
        identity("a", origin="x"),
        identity("b", degrees=65, origin="x"),
        identity("c", 0, 138, origin="x"),
    ]
    summary = table(rows)
    pairs, person = linked(summary)
    found = near_threshold(summary, pairs, person, PEOPLE, set(summary["key"].to_pylist()))
    (pair,) = found["linked"]
    assert (pair.first, pair.second, pair.cosine, pair.least_cosine) == ("a_00", "b_00", 0.4226, 0.3)
    (pair,) = found["apart"]
    assert (pair.first, pair.second, pair.cosine, pair.least_cosine) == ("b_00", "c_00", 0.2924, 0.3)


def test_the_alarm_does_not_wait_for_a_hub_to_take_in_everyone() -> None:
    # All are alike, the first ones most: a group takes in one more in each pass.
    rng = np.random.default_rng(0)
    strength = np.linspace(0.95, 0.83, 300)[:, None]
    noise = rng.normal(size=(300, 64))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    noise[:, 0] = 0
    vectors = strength * np.eye(1, 64) + np.sqrt(1 - strength**2) * noise
    rows = [identity(f"v{n:03d}", embedding=vector.tolist()) for n, vector in enumerate(vectors)]
    people = PEOPLE.model_copy(update={"max_person_videos": 20, "link_cosine": 0.6})
    with pytest.raises(BuildError, match=r"one person would be in (2[1-9]|3\d|4\d) videos"):
        linked(table(rows), people)
