"""Persons are linked, copies rejected and a test split held out, in any order of finished videos."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import People, Split
from pipeline.linking import Assignment, Identity, assign, held_out, link_identities
from shards.record_checks import validate_video
from shards.schema import Reason, Status, TrackOutcome, VideoOutcome
from shards.schema import Split as SplitName

ALL_TRAIN = Split(test_videos=0)


def at(degrees: float) -> NDArray[np.float32]:
    """A unit vector; the cosine of two is that of the angle between them."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def identity(
    video: str, track: int = 0, degrees: float = 0.0, badness: float = 1.0, origin: str | None = None
) -> Identity:
    return Identity(f"{video}_{track:02d}", video, origin, at(degrees), badness)


def outcome(video: str, identities: list[Identity], content: str | None = None) -> VideoOutcome:
    keys = sorted(i.key for i in identities if i.video_id == video)
    tracks = [
        TrackOutcome(track=number, start_s=0, end_s=1, frames=9, usable_frames=9, key=key)
        for number, key in enumerate(keys)
    ]
    too_short = TrackOutcome(
        track=len(keys), start_s=2, end_s=3, frames=2, usable_frames=2, reason=Reason.TRACK_TOO_SHORT
    )
    return VideoOutcome(
        video_id=video,
        source="clips",
        uri=video,
        bytes=1,
        sha256=hashlib.sha256((content or video).encode()).hexdigest(),
        status=Status.ACCEPTED if keys else Status.REJECTED,
        reason=None if keys else Reason.TRACK_TOO_SHORT,
        tracks=[*tracks, too_short],
        identities=len(keys),
    )


def settle(
    identities: list[Identity], people: People | None = None, split: Split = ALL_TRAIN, **contents: str
) -> Assignment:
    videos = sorted({i.video_id for i in identities})
    outcomes = [outcome(video, identities, contents.get(video)) for video in videos]
    return assign(outcomes, identities, people or People(), split)


def consistent(assignment: Assignment) -> bool:
    named = {track.key for o in assignment.outcomes for track in o.tracks if track.key}
    return named == assignment.placements.keys() and not [
        p for o in assignment.outcomes for p in validate_video(o)
    ]


def test_identities_that_are_alike_are_one_person_and_others_are_not() -> None:
    identities = [identity("a", degrees=0), identity("b", degrees=50), identity("c", degrees=140)]
    persons = link_identities(identities, least_cosine=0.5)
    assert persons["a_00"] == persons["b_00"] != persons["c_00"]


def test_likeness_is_followed_along_a_chain() -> None:
    identities = [identity(name, degrees=50.0 * number) for number, name in enumerate("abcd")]
    assert len(set(link_identities(identities, least_cosine=0.5).values())) == 1


def test_a_person_keeps_its_id_when_more_of_them_are_found() -> None:
    few = link_identities([identity("a"), identity("c", degrees=90)], 0.5)
    more = link_identities([identity("a"), identity("b"), identity("c", degrees=90)], 0.5)
    assert {key: more[key] for key in few} == few


def test_the_threshold_may_be_zero_or_less() -> None:
    opposite = [identity("a", degrees=0), identity("b", degrees=100), identity("c", degrees=200)]
    assert len(set(link_identities(opposite, least_cosine=0.0).values())) == 3
    assert len(set(link_identities(opposite, least_cosine=-0.5).values())) == 1


def test_many_identities_are_compared_across_the_blocks_of_the_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.linking.ROWS_AT_ONCE", 3)
    identities = [identity(f"v{number:02d}", degrees=(number % 4) * 90) for number in range(20)]
    persons = link_identities(identities, 0.9)
    assert len(set(persons.values())) == 4
    assert all(persons[f"v{n:02d}_00"] == persons[f"v{n + 4:02d}_00"] for n in range(16))


def test_no_identities_are_no_persons() -> None:
    assert link_identities([], 0.5) == {}
    assert assign([], [], People(), Split()) == Assignment([], {})


def test_clips_of_one_file_are_copies_only_when_span_and_box_are_equal() -> None:
    identities = [identity(name, degrees=90.0 * number) for number, name in enumerate("abcde")]
    outcomes = [outcome(name, identities, "one file") for name in "abcde"]
    spans = [(0.0, 5.0), (5.0, 9.0), (0.0, 5.0), (0.0, 5.0), None]
    boxes = [None, None, (0.1, 0.1, 0.5, 0.5), None, None]
    outcomes = [
        video.model_copy(update={"span_s": span, "annotated_box": box})
        for video, span, box in zip(outcomes, spans, boxes, strict=True)
    ]
    assignment = assign(outcomes, identities, People(), ALL_TRAIN)
    assert {o.video_id: o.reason for o in assignment.outcomes if o.reason} == {"d": Reason.DUPLICATE_VIDEO}
    assert assignment.outcomes[3].detail == "same content as a"


def test_a_file_with_the_content_of_an_earlier_one_is_rejected_and_names_the_earlier_one() -> None:
    identities = [identity("a"), identity("b"), identity("c", degrees=90)]
    assignment = settle(identities, a="same", b="same")
    by_video = {o.video_id: o for o in assignment.outcomes}
    assert by_video["b"].status is Status.REJECTED
    assert by_video["b"].reason is Reason.DUPLICATE_VIDEO
    assert by_video["b"].detail == "same content as a"
    assert by_video["b"].tracks[0].reason is Reason.DUPLICATE_VIDEO
    assert by_video["b"].tracks[1].reason is Reason.TRACK_TOO_SHORT
    assert assignment.placements.keys() == {"a_00", "c_00"}
    assert consistent(assignment)


def test_of_a_video_that_failed_nothing_is_a_copy() -> None:
    failed = outcome("a", [], "same")
    accepted = [identity("b")]
    assignment = assign([failed, outcome("b", accepted, "same")], accepted, People(), ALL_TRAIN)
    assert [o.reason for o in assignment.outcomes] == [Reason.TRACK_TOO_SHORT, None]


def test_all_identities_of_a_person_are_kept_unless_configured_otherwise() -> None:
    assignment = settle([identity("a"), identity("b", badness=0.5)])
    assert assignment.placements.keys() == {"a_00", "b_00"}


def test_only_the_best_identity_of_a_person_is_kept_on_request() -> None:
    identities = [identity("a", badness=2), identity("b", badness=1), identity("c", degrees=90, badness=9)]
    assignment = settle(identities, People(keep="best"))
    assert assignment.placements.keys() == {"b_00", "c_00"}
    assert assignment.outcomes[0].reason is Reason.DUPLICATE_PERSON
    assert assignment.outcomes[0].detail == "b_00 shows the same person better"
    assert consistent(assignment)


def test_a_video_that_keeps_another_identity_stays_accepted() -> None:
    identities = [identity("a", 0, badness=2), identity("a", 1, degrees=90), identity("b", badness=1)]
    assignment = settle(identities, People(keep="best"))
    first = assignment.outcomes[0]
    assert (first.status, first.identities) == (Status.ACCEPTED, 1)
    assert first.tracks[0].reason is Reason.DUPLICATE_PERSON
    assert consistent(assignment)


def test_a_video_that_loses_all_its_identities_is_rejected() -> None:
    identities = [identity("a", 0, badness=2), identity("a", 1, badness=3), identity("b", badness=1)]
    assignment = settle(identities, People(keep="best"))
    assert assignment.outcomes[0].status is Status.REJECTED
    assert consistent(assignment)


def test_the_wanted_number_of_videos_is_held_out_where_there_are_enough() -> None:
    identities = [identity(f"v{number:03d}", degrees=number * 0.36) for number in range(1000)]
    persons = {i.key: i.key for i in identities}
    assert len(held_out(identities, persons, Split(test_videos=44))) == 44
    assert len(held_out(identities[:100], persons, Split(test_videos=44, max_test_fraction=0.1))) == 10


def test_another_seed_holds_out_others() -> None:
    identities = [identity(f"v{number:03d}") for number in range(100)]
    persons = {i.key: i.key for i in identities}
    first, again, other = (held_out(identities, persons, Split(test_videos=10, seed=s)) for s in (0, 0, 1))
    assert first == again != other


def test_adding_videos_hardly_changes_who_is_held_out() -> None:
    identities = [identity(f"v{number:03d}") for number in range(200)]
    persons = {i.key: i.key for i in identities}
    few = held_out(identities[:190], persons, Split(test_videos=10))
    many = held_out(identities, persons, Split(test_videos=10))
    assert len(few & many) >= 8


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[Identity], dict[str, str]]:
    identities = []
    contents = {}
    for number in range(draw(st.integers(0, 25))):
        video = f"v{number:02d}"
        contents[video] = draw(st.sampled_from(["same", video, video, video]))
        origin = draw(st.sampled_from([None, None, "o1", "o2", "o3"]))
        for track in range(draw(st.integers(1, 3))):
            degrees = draw(st.integers(0, 11)) * 30.0
            identities.append(identity(video, track, degrees, draw(st.integers(0, 3)) * 1.0, origin))
    return identities, contents


@settings(max_examples=100, deadline=None)
@given(data_sets(), st.sampled_from(["all", "best"]), st.integers(0, 10), st.floats(0, 1), st.randoms())
def test_nothing_is_in_both_splits_and_all_records_agree(
    made: tuple[list[Identity], dict[str, str]], keep: str, test_videos: int, most: float, random: object
) -> None:
    identities, contents = made
    people = People(keep=keep, same_person_cosine=0.95)  # type: ignore[arg-type]
    split = Split(test_videos=test_videos, max_test_fraction=most)
    outcomes = [outcome(video, identities, content) for video, content in contents.items()]
    assignment = assign(outcomes, identities, people, split)
    shuffled_outcomes, shuffled = list(outcomes), list(identities)
    random.shuffle(shuffled_outcomes)  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(shuffled_outcomes, shuffled, people, split) == assignment
    assert [o.video_id for o in assignment.outcomes] == sorted(contents)
    assert consistent(assignment)

    kept = [i for i in identities if i.key in assignment.placements]
    for shared_by in (
        lambda i: assignment.placements[i.key].person_id,
        lambda i: i.video_id,
        lambda i: i.origin or i.key,
    ):
        splits = {(shared_by(i), assignment.placements[i.key].split) for i in kept}
        assert max(Counter(name for name, _ in splits).values(), default=1) == 1
    test = {i.video_id for i in kept if assignment.placements[i.key].split is SplitName.TEST}
    assert len(test) <= min(test_videos, most * len({i.video_id for i in kept}))
    if keep == "best":
        assert len({placement.person_id for placement in assignment.placements.values()}) == len(kept)
