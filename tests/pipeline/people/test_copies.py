"""Of identities that show the same footage, the one with the most detail is kept."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.people.copies import copies, original_in
from pipeline.people.near_duplicates import Match


def match(first: int, second: int, shared_s: float = 8.0, offset_s: float = 0.0, **seconds: float) -> Match:
    return Match(
        first,
        second,
        offset_s,
        shared_s,
        seconds.get("first_s", 8.0),
        seconds.get("second_s", 8.0),
        0.9,
    )


def test_the_copy_with_less_detail_is_dropped() -> None:
    dropped = copies(["copy", "original"], [60_000, 90_000], [match(0, 1)])
    assert {key: copy.kept for key, copy in dropped.items()} == {"copy": "original"}
    assert dropped["copy"].detail == "same footage as original: 100 % of its 8.0 s"


def test_of_equal_detail_the_longer_is_kept() -> None:
    found = match(0, 1, 4.0, offset_s=-2.31, first_s=9.5, second_s=4.35)
    dropped = copies(["long", "short"], [80_000, 82_000], [found])
    assert {key: copy.kept for key, copy in dropped.items()} == {"short": "long"}
    assert dropped["short"].detail == "same footage as long: 92 % of its 4.3 s, shifted by 2.3 s"


def test_an_interview_is_not_dropped_for_a_sharper_part_of_it() -> None:
    found = match(0, 1, 6.0, first_s=60.0, second_s=6.0)
    assert copies(["interview", "part"], [40_000, 95_000], [found]) == {}


def test_a_group_keeps_one() -> None:
    found = [match(0, 1), match(0, 2), match(1, 2), match(1, 3)]
    dropped = copies(["a", "b", "c", "d"], [70_000, 90_000, 80_000, 60_000], found)
    assert {key: copy.kept for key, copy in dropped.items()} == {"a": "b", "c": "b", "d": "b"}


def test_footage_that_only_a_dropped_one_links_to_the_kept_is_kept() -> None:
    # Spans of 0 to 8, 4 to 12 and 8 to 16 s: the last shares nothing with the first.
    found = [match(0, 1, 4.0), match(1, 2, 4.0)]
    dropped = copies(["a", "b", "c"], [90_000, 80_000, 70_000], found)
    assert {key: copy.kept for key, copy in dropped.items()} == {"b": "a"}


def test_equals_are_decided_by_their_keys() -> None:
    assert list(copies(["b", "a"], [80_000, 80_000], [match(0, 1)])) == ["b"]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_identities_and_matches_changes_nothing(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    count = draw.randint(2, 12)
    sizes = [float(draw.choice([50_000, 60_000, 70_000])) for _ in range(count)]
    seconds = [draw.choice([4.0, 8.0, 20.0]) for _ in range(count)]
    edges = [
        (a, b, draw.uniform(0.5, 1.0) * min(seconds[a], seconds[b]))
        for a in range(count)
        for b in range(a)
        if draw.random() < 0.4
    ]

    def dropped(order: list[int]) -> dict[str, object]:
        place = {row: number for number, row in enumerate(order)}
        found = []
        for a, b, shared_s in draw.sample(edges, len(edges)):
            first, second = sorted((a, b), key=place.__getitem__)
            found.append(
                match(place[first], place[second], shared_s, first_s=seconds[first], second_s=seconds[second])
            )
        return dict(copies([f"key{row}" for row in order], [sizes[row] for row in order], found))

    first = dropped(list(range(count)))
    assert dropped(draw.sample(range(count), count)) == first
    for key, copy in first.items():
        assert copy.kept not in first  # type: ignore[attr-defined]
        assert key != copy.kept  # type: ignore[attr-defined]
        assert original_in(copy.detail) == copy.kept  # type: ignore[attr-defined]


def test_other_details_name_no_original() -> None:
    assert original_in(None) is None
    assert original_in("same content as clips/a.mp4") is None
