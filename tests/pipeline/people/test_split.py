"""Who is held out: whole groups, whatever the order of the rows, and the same people when videos are added."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import Split
from pipeline.people.earlier_split import EarlierSplit
from pipeline.people.listed_videos import ListedVideos
from pipeline.people.split import HoldOut, hold_out

PROPERTY = settings(max_examples=300, deadline=None)


@dataclass(frozen=True)
class Row:
    """An identity, as the tests write it: the `track`-th of its video."""

    video: str
    person: int
    origin: str | None = None
    track: int = 0
    content: str | None = None

    @property
    def key(self) -> str:
        return f"{self.video}_{self.track:02d}"


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([row.key for row in rows], pa.string()),
            "video_id": pa.array([row.video for row in rows], pa.string()),
            "content": pa.array([row.content or row.video for row in rows], pa.string()),
            "origin": pa.array([row.origin for row in rows], pa.string()),
        }
    )


def split(rows: Sequence[Row], config: Split, **given: object) -> HoldOut:
    persons = np.array([row.person for row in rows], dtype=np.int64)
    return hold_out(table(rows), persons, config, **given)  # type: ignore[arg-type]


def held_out_keys(rows: Sequence[Row], found: HoldOut) -> set[str]:
    return {row.key for row, held_out in zip(rows, found.test, strict=True) if held_out}


def as_earlier(rows: Sequence[Row], found: HoldOut) -> EarlierSplit:
    return EarlierSplit("mfhq 1.0.0", table(rows).append_column("test", pa.array(found.test)))


def groups_of(rows: Sequence[Row]) -> list[set[str]]:
    """The keys of each group, found the slow way."""
    groups: list[list[Row]] = []
    for row in rows:
        tied = [group for group in groups if any(_tied(row, other) for other in group)]
        groups = [group for group in groups if group not in tied]
        groups.append([row, *itertools.chain.from_iterable(tied)])
    return [{row.key for row in group} for group in groups]


def _tied(one: Row, other: Row) -> bool:
    same_origin = one.origin is not None and one.origin == other.origin
    return one.person == other.person or one.video == other.video or same_origin


@st.composite
def worlds(draw: st.DrawFn, videos: str = "abcdefghijkl") -> list[Row]:
    """Identities of some videos; persons and origins repeat."""
    rows = []
    for video in draw(st.lists(st.sampled_from(videos), unique=True, max_size=len(videos))):
        origin = draw(st.sampled_from([None, None, "o1", "o2", "o3", "o4"]))
        rows += [
            Row(video, draw(st.integers(0, 12)), origin, track) for track in range(draw(st.integers(1, 2)))
        ]
    return rows


@st.composite
def growing_worlds(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Identities, and the same with further videos, by which persons may turn out to be one."""
    before = draw(worlds("abcdef"))
    merged = draw(st.dictionaries(st.integers(0, 12), st.integers(0, 12), max_size=3))
    after = [Row(row.video, merged.get(row.person, row.person), row.origin, row.track) for row in before]
    return before, after + draw(worlds("uvwxyz"))


configs = st.builds(
    Split,
    test_fraction=st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]),
    max_group_videos=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 9),
)
unlimited = st.builds(Split, test_fraction=st.sampled_from([0.1, 0.3, 0.6]), seed=st.integers(0, 9))


@PROPERTY
@given(worlds(), configs)
def test_no_person_no_video_and_no_origin_is_in_both_splits(rows: list[Row], config: Split) -> None:
    found = split(rows, config)
    for name in ("person", "video", "origin"):
        of_split = [
            {
                getattr(row, name)
                for row, test in zip(rows, found.test, strict=True)
                if test == held_out and getattr(row, name) is not None
            }
            for held_out in (False, True)
        ]
        assert of_split[0].isdisjoint(of_split[1])


@PROPERTY
@given(worlds(), configs, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_numbers_of_persons_do_not_matter(
    rows: list[Row], config: Split, random: object
) -> None:
    found = split(rows, config)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = [Row(row.video, 100 - row.person, row.origin, row.track) for row in shuffled]
    other = split(again, config)
    assert held_out_keys(again, other) == held_out_keys(rows, found)
    assert other.notes == found.notes


@PROPERTY
@given(growing_worlds(), unlimited)
def test_added_videos_never_move_a_held_out_person_to_the_training_split(
    worlds: tuple[list[Row], list[Row]], config: Split
) -> None:
    before, after = worlds
    config = config.model_copy(update={"max_group_videos": None})
    first, second = held_out_keys(before, split(before, config)), held_out_keys(after, split(after, config))
    assert first <= second
    # Only a group that gained a video may change at all.
    old = groups_of(before)
    for group in groups_of(after):
        if group in old:
            assert group & first == group & second


@PROPERTY
@given(growing_worlds(), unlimited, st.integers(1, 4))
def test_a_held_out_group_leaves_only_when_it_outgrows_the_limit_and_is_named(
    worlds: tuple[list[Row], list[Row]], config: Split, most: int
) -> None:
    before, after = worlds
    config = config.model_copy(update={"max_group_videos": most})
    found = split(after, config)
    left = held_out_keys(before, split(before, config)) - held_out_keys(after, found)
    for group in groups_of(after):
        if group & left:
            assert len({row.video for row in after if row.key in group}) > most
            assert "larger than split.max_group_videos" in found.notes[0]


@PROPERTY
@given(growing_worlds(), unlimited, configs)
def test_with_an_earlier_dataset_no_identity_moves_but_in_groups_of_both_splits(
    worlds: tuple[list[Row], list[Row]], first: Split, second: Split
) -> None:
    before, after = worlds
    was = split(before, first)
    held_out = held_out_keys(before, was)
    trained = {row.key for row in before} - held_out
    now = split(after, second, earlier=as_earlier(before, was))
    is_out = held_out_keys(after, now)
    mixed = [group for group in groups_of(after) if group & held_out and group & trained]
    assert held_out <= is_out
    assert is_out & trained == set().union(*mixed) & trained
    named = [
        note for note in now.notes if "made of identities that mfhq 1.0.0 held out and of others" in note
    ]
    assert len(named) == bool(mixed)
    assert all(min(group) in named[0] for group in mixed[: 3 if len(mixed) <= 3 else 0])


@PROPERTY
@given(worlds(), st.sets(st.sampled_from("abcdefghijkl")), configs, st.booleans())
def test_with_a_list_exactly_the_groups_of_listed_videos_are_held_out(
    rows: list[Row], listed: set[str], config: Split, continues: bool
) -> None:
    entries = ListedVideos({video: (video,) for video in sorted(listed)})
    earlier = as_earlier(rows, split(rows, config)) if continues else None
    found = split(rows, config, listed=entries, earlier=earlier)
    expected = [
        group for group in groups_of(rows) if any(row.video in listed for row in rows if row.key in group)
    ]
    assert held_out_keys(rows, found) == set().union(*expected)
    unlisted = {row.video for row in rows if row.key in set().union(*expected)} - listed
    said = [note for note in found.notes if "that split.test_list does not name" in note]
    assert len(said) == bool(unlisted)
    assert all(said[0].startswith(f"{len(unlisted)} video") for _ in said)


@PROPERTY
@given(growing_worlds(), configs, configs, st.sets(st.sampled_from("abcdefghijkl")))
def test_notes_are_few(
    worlds: tuple[list[Row], list[Row]], first: Split, second: Split, listed: set[str]
) -> None:
    before, after = worlds
    earlier = as_earlier(before, split(before, first))
    entries = ListedVideos({video: (video,) for video in sorted(listed)})
    for found in (
        split(after, second, earlier=earlier),
        split(after, second, earlier=earlier, listed=entries),
    ):
        assert len(found.notes) <= 6
        assert len(set(found.notes)) == len(found.notes)
        if after:
            assert any(note.startswith("The test split is empty") for note in found.notes) != found.test.any()
            assert any(note.startswith("Everybody is held out") for note in found.notes) == found.test.all()


def many(count: int) -> tuple[pa.Table, NDArray[np.int64]]:
    """Two identities a video, five videos an origin where one is known, groups of twenty videos."""
    number = np.arange(count)
    videos, origins = number // 2, number // 10
    rows = pa.table(
        {
            "key": pa.array([f"k{n:07d}" for n in number]),
            "video_id": pa.array([f"v{n:07d}" for n in videos]),
            "content": pa.array([f"c{n:07d}" for n in videos]),
            "origin": pa.array([f"o{n}" if n % 3 else None for n in origins]),
        }
    )
    return rows, number // 40 * 10 + number % 10


def test_two_hundred_thousand_identities_are_split_about_as_asked() -> None:
    rows, persons = many(200_000)
    found = hold_out(rows, persons, Split(test_fraction=0.01))
    assert found.notes == []
    assert 0.03 < found.test.mean() < 0.2
    again = hold_out(rows, persons, Split(test_fraction=0.01, seed=1))
    assert (found.test != again.test).any()
    continued = hold_out(
        rows,
        persons,
        Split(test_fraction=0.5),
        earlier=EarlierSplit("mfhq 1.0.0", rows.append_column("test", pa.array(found.test))),
    )
    assert (continued.test == found.test).all()
    listed = ListedVideos({video: (video,) for video in ("v0000000", "v0099999")})
    pinned = hold_out(rows, persons, Split(), listed=listed)
    assert pinned.test[:40].all()
    assert pinned.test[-40:].all()
    assert pinned.test.sum() == 80


def test_the_draw_is_pinned_so_that_no_version_moves_anybody() -> None:
    """Datasets are out there: these are the people that they hold out."""
    rows = [Row(f"folder/{name}.mp4", number) for number, name in enumerate("abcdefghijklmnopqrst")]
    rows += [Row(f"clips/{n}", 100 + n, f"origin-{n}") for n in range(20)]
    assert held_out_keys(rows, split(rows, Split(test_fraction=0.2))) == PINNED


PINNED = {"clips/12_00", "clips/16_00", "folder/i.mp4_00"}


def test_a_person_of_n_videos_is_held_out_if_any_of_them_is_drawn() -> None:
    alone = [Row(f"v{number:03d}", number) for number in range(400)]
    paired = [Row(row.video, row.person // 2) for row in alone]
    config = Split(test_fraction=0.1)
    videos = {key[:4] for key in held_out_keys(alone, split(alone, config))}
    expected = {f"v{n:03d}_00" for n in range(400) if {f"v{n:03d}", f"v{n ^ 1:03d}"} & videos}
    assert held_out_keys(paired, split(paired, config)) == expected


def test_no_identities_are_no_split_and_no_notes() -> None:
    found = split([], Split())
    assert (len(found.test), found.notes) == (0, [])


def test_a_small_dataset_with_an_empty_test_split_says_why_and_the_value_that_does() -> None:
    rows = [Row(f"v{number}", number) for number in range(5)]
    (note,) = split(rows, Split()).notes
    assert note.startswith(
        "The test split is empty: of 5 identities in 5 groups, none is drawn with split.test_fraction=0.01. "
        "split.test_fraction=0."
    )
    assert note.endswith("(1 video).")
    fraction = float(note.split("split.test_fraction=")[2].split()[0])
    found = split(rows, Split(test_fraction=fraction))
    assert found.notes == []
    (key,) = held_out_keys(rows, found)
    assert f"holds out 1 identity: the group of {key} (1 video)." in note


@given(st.integers(2, 40), st.integers(0, 50))
@settings(deadline=None)
def test_the_value_that_a_note_names_holds_out_one_group(count: int, seed: int) -> None:
    rows = [Row(f"v{number}", number) for number in range(count)]
    (note,) = split(rows, Split(test_fraction=0, seed=seed)).notes
    fraction = float(note.split("split.test_fraction=")[2].split()[0])
    assert split(rows, Split(test_fraction=fraction, seed=seed)).test.sum() == 1


def test_one_group_can_not_be_divided() -> None:
    rows = [Row("a", 1), Row("b", 1), Row("c", 2, "o"), Row("b", 2, None, 1)]
    (note,) = split(rows, Split()).notes
    assert note == (
        "The test split is empty: all videos share a person, a video or an origin, so nothing would be left to "
        "train on. Add videos of other people."
    )
    (note,) = split(rows, Split(test_fraction=1)).notes
    assert note == (
        "Everybody is held out, and nothing is left to train on: all videos share a person, a video or an "
        "origin. Add videos of other people."
    )


def test_groups_that_do_not_fit_are_named_with_size_key_and_origins() -> None:
    rows = [Row(f"v{number}", 1, f"o{number // 2}") for number in range(10)] + [Row("w", 2)]
    note = split(rows, Split(test_fraction=1, max_group_videos=5)).notes[0]
    assert note.startswith(
        "1 group is drawn for the test split, but larger than split.max_group_videos=5 and so left in the "
        "training split: that of v0_00 (10 videos from o0, o1, o2 and 2 more). Raise the key to hold them out."
    )
    only_large = [Row(f"{person}{number}", ord(person)) for person in "xyz" for number in range(3)]
    found = split(only_large, Split(test_fraction=1, max_group_videos=2))
    assert found.notes[0].startswith("3 groups are drawn")
    assert found.notes[1] == (
        "The test split is empty: the groups are larger than split.max_group_videos=2. Raise the key, or pin "
        "the held-out videos by split.test_list."
    )


def test_nothing_left_to_train_on_is_said() -> None:
    rows = [Row("a", 1), Row("b", 2)]
    (note,) = split(rows, Split(test_fraction=1)).notes
    assert note == (
        "Everybody is held out, and nothing is left to train on: every group is drawn with "
        "split.test_fraction=1. Lower it."
    )
    (note,) = split(rows, Split(), listed=ListedVideos({"a": ("a",), "b": ("b",)})).notes
    assert "split.test_list names someone of every group" in note


def earlier(*rows: tuple[Row, bool]) -> EarlierSplit:
    return as_earlier([row for row, _ in rows], HoldOut(np.array([test for _, test in rows]), []))


def test_an_identity_is_recognised_by_its_key_else_its_video_else_its_origin() -> None:
    known = earlier(
        (Row("a", 1, "oa"), True),
        (Row("b", 2, "ob"), False),
        (Row("c", 3, "oc", 5), True),
        (Row("d", 4), True),
    )
    rows = [
        Row("a", 1, "ob"),
        Row("c", 3, "ob2", 0),
        Row("new", 5, "oc"),
        Row("other", 6, "ob3"),
        Row("d", 9),
    ]
    states = known.states(table(rows))
    assert states.tolist() == [1, 1, 1, -1, 1]
    assert known.states(table([Row("x", 1, "ob"), Row("y", 1, None)])).tolist() == [0, -1]


def test_groups_that_new_videos_make_of_both_splits_are_held_out_and_named() -> None:
    known = earlier((Row("a", 1), True), (Row("b", 2), False), (Row("c", 3), False))
    rows = [Row("a", 1), Row("b", 2), Row("c", 3), Row("d", 1, None, 0), Row("d", 2, None, 1)]
    found = split(rows, Split(test_fraction=0), earlier=known)
    assert held_out_keys(rows, found) == {"a_00", "b_00", "d_00", "d_01"}
    assert found.notes == [
        (
            "1 group is made of identities that mfhq 1.0.0 held out and of others that it trained on, because "
            "new videos or settings link them. All of their videos are held out now: that of a_00 (3 videos)."
        )
    ]


def test_a_group_held_out_earlier_stays_so_when_it_outgrows_the_limit_and_is_named() -> None:
    known = earlier((Row("a", 1), True), (Row("z", 9), False))
    rows = [Row(video, 1) for video in "abcd"] + [Row("z", 9)]
    found = split(rows, Split(max_group_videos=2), earlier=known)
    assert held_out_keys(rows, found) == {f"{video}_00" for video in "abcd"}
    assert found.notes == [
        "1 group is larger than split.max_group_videos=2, but held out as in mfhq 1.0.0: that of a_00 (4 videos)."
    ]


def test_held_out_people_who_are_gone_and_a_dataset_of_others_are_named() -> None:
    known = earlier((Row("a", 1), True), (Row("b", 2), True), (Row("z", 9), False))
    rows = [Row("a", 1), Row("z", 9)]
    assert split(rows, Split(), earlier=known).notes == [
        (
            "mfhq 1.0.0 held out 1 identity of which this build has neither the video nor the origin: b_00. "
            "The test split is smaller by them."
        )
    ]
    others = [Row("p", 1), Row("q", 2)]
    first = split(others, Split(test_fraction=1), earlier=known).notes[0]
    assert first.startswith(
        "No identity, video or origin of this build is in mfhq 1.0.0, the dataset of split.from"
    )


def test_an_earlier_dataset_without_a_test_split_says_why_this_one_is_empty() -> None:
    known = earlier((Row("a", 1), False), (Row("b", 2), False))
    (note,) = split([Row("a", 1), Row("b", 2)], Split(test_fraction=1), earlier=known).notes
    assert note == (
        "The test split is empty: mfhq 1.0.0 trained on someone of every group. Pin the held-out videos by "
        "split.test_list, or leave split.from out."
    )


def test_entries_of_a_list_without_effect_are_named_with_why() -> None:
    entries = ListedVideos({"a": ("s/a.mp4",), "x": (), "y": (), "r": ("s/r.mp4",)})
    rows = [Row("s/a.mp4", 1), Row("s/b.mp4", 2)]
    found = split(rows, Split(), listed=entries, reasons={"s/r.mp4": "no_face"})
    assert held_out_keys(rows, found) == {"s/a.mp4_00"}
    assert found.notes == [
        (
            "split.test_list: the sources have no video for 2 of 4 entries: x, y. They do not change the split. "
            "Names are compared exactly; paths are relative to the source's path."
        ),
        "split.test_list: the videos of 1 of 4 entries are not accepted, so they are in no split: r (no_face).",
    ]


def test_videos_that_are_held_out_with_listed_ones_are_named() -> None:
    entries = ListedVideos({"a": ("a",), "f": ("f",)})
    rows = [Row(video, 1) for video in "abcde"] + [Row("f", 2), Row("g", 3)]
    found = split(rows, Split(), listed=entries)
    assert held_out_keys(rows, found) == {f"{video}_00" for video in "abcdef"}
    assert found.notes == [
        (
            "4 videos that split.test_list does not name are held out as well, for sharing a person, a video "
            "or an origin with listed ones: b (linked to a), c (linked to a), d (linked to a) and 1 more."
        )
    ]


@pytest.mark.parametrize(
    ("entries", "note"),
    [
        ({}, "The test split is empty: split.test_list has no entries. Add some, or leave the key out."),
        (
            {"r": ("r",)},
            (
                "The test split is empty: no video of the 1 entry of split.test_list is accepted. Correct the "
                "list, or leave the key out."
            ),
        ),
    ],
)
def test_a_list_with_an_empty_test_split_says_why(entries: dict[str, tuple[str, ...]], note: str) -> None:
    found = split([Row("a", 1), Row("b", 2)], Split(test_fraction=1), listed=ListedVideos(entries))
    assert not found.test.any()
    assert found.notes[-1] == note


def test_a_list_wins_over_an_earlier_dataset_and_who_moves_is_named() -> None:
    known = earlier((Row("a", 1), True), (Row("b", 2), False), (Row("c", 3), False))
    rows = [Row("a", 1), Row("b", 2), Row("c", 3)]
    found = split(rows, Split(), earlier=known, listed=ListedVideos({"b": ("b",)}))
    assert held_out_keys(rows, found) == {"b_00"}
    assert found.notes == [
        (
            "1 group is trained on now, because split.test_list does not name them, but mfhq 1.0.0 held them "
            "out: that of a_00 (1 video)."
        ),
        (
            "1 group is held out now, because split.test_list names them, but mfhq 1.0.0 trained on them: that "
            "of b_00 (1 video)."
        ),
    ]


def test_a_renamed_file_keeps_its_side() -> None:
    before = [Row("a", 1, content="x"), Row("b", 2, content="y"), Row("c", 3)]
    earlier = EarlierSplit("mfhq 1.0.0", table(before).append_column("test", pa.array([True, False, False])))
    after = [Row("d", 1, content="x"), Row("e", 2, content="y"), Row("f", 4)]
    found = split(after, Split(test_fraction=0.0), earlier=earlier)
    assert held_out_keys(after, found) == {"d_00"}
    assert found.notes == []
    found = split(after, Split(test_fraction=1.0), earlier=earlier)
    assert held_out_keys(after, found) == {"d_00", "f_00"}


def test_what_is_left_out_ties_groups_and_is_not_counted() -> None:
    rows = [Row("a", 1), Row("b", 1), Row("c", 2, origin="o"), Row("d", 3, origin="o"), Row("e", 4)]
    found = split(rows, Split(test_fraction=0.0), left_out={"a_00", "d_00"})
    (note,) = found.notes
    assert "of 3 identities in 3 groups" in note
    assert "a_00" not in note
    assert "d_00" not in note
    found = split(
        rows, Split(), listed=ListedVideos({"a": ("a",)}), left_out={"a_00"}, reasons={"a": "duplicate_video"}
    )
    assert held_out_keys(rows, found) == {"a_00", "b_00"}
    assert found.notes[0] == (
        "split.test_list: the videos of 1 entry are left out, because other videos show the same person; these "
        "are held out in their place: a (duplicate_video)."
    )


def test_a_copy_that_the_earlier_dataset_left_out_keeps_its_persons_side() -> None:
    kept = table([Row("a", 1), Row("b", 2)]).append_column("test", pa.array([True, False]))
    copies = table([Row("c", 1), Row("d", 2)]).append_column("test", pa.array([True, False]))
    copies = copies.set_column(0, "key", pa.nulls(2, pa.string()))
    earlier = EarlierSplit("mfhq 1.0.0", pa.concat_tables([kept, copies]))
    after = [Row("c", 1), Row("d", 2)]
    assert held_out_keys(after, split(after, Split(test_fraction=0.0), earlier=earlier)) == {"c_00"}
    assert held_out_keys(after, split(after, Split(test_fraction=1.0), earlier=earlier)) == {"c_00"}
