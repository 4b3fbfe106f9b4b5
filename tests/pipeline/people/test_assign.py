"""Persons, duplicates and the split are decided together, and the records of all videos agree with them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from footage import filmed, times
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_rows import PEOPLE, identity, table

from pipeline.config import People, Split
from pipeline.people import duplicates
from pipeline.people.assign import Assignment, Recognition, SplitRequest, assign
from pipeline.people.listed_videos import ListedVideos
from pipeline.people.outcomes import without
from pipeline.people.split_inputs import SplitInputs
from shards.record_checks import validate_video
from shards.schema import Reason, Status, TrackOutcome, VideoOutcome
from shards.schema import Split as SplitName


def assigned(
    rows: list[dict[str, Any]] | pa.Table, people: People = PEOPLE, test_fraction: float = 0.0
) -> Assignment:
    summary = table(rows) if isinstance(rows, list) else rows
    split = SplitRequest(Split(test_fraction=test_fraction), SplitInputs(), None, {})
    return assign(summary, people, split, Recognition("sface", 0.5))


def outcomes(rows: list[dict[str, Any]]) -> dict[str, VideoOutcome]:
    """An outcome for each video, as curation leaves it; each has one more track, without an identity."""
    found = {}
    for video in sorted({row["video_id"].removeprefix("clips/") for row in rows}):
        keys = sorted(row["key"] for row in rows if row["video_id"].removeprefix("clips/") == video)
        tracks = [
            TrackOutcome(track=number, start_s=0, end_s=1, frames=9, usable_frames=9, key=key)
            for number, key in enumerate(keys)
        ]
        short = TrackOutcome(
            track=len(keys), start_s=2, end_s=3, frames=2, usable_frames=2, reason=Reason.TRACK_TOO_SHORT
        )
        found[video] = VideoOutcome(
            video_id=f"clips/{video}",
            source="clips",
            uri=video,
            bytes=1,
            sha256=hashlib.sha256(video.encode()).hexdigest(),
            status=Status.ACCEPTED,
            tracks=[*tracks, short],
            identities=len(keys),
        )
    return found


def settled(rows: list[dict[str, Any]], assignment: Assignment) -> dict[str, VideoOutcome]:
    return {video: without(outcome, assignment.rejections) for video, outcome in outcomes(rows).items()}


def is_consistent(rows: list[dict[str, Any]], assignment: Assignment) -> bool:
    videos = settled(rows, assignment).values()
    named = {track.key for video in videos for track in video.tracks if track.key}
    return named == assignment.placements.keys() and not [
        error for v in videos for error in validate_video(v)
    ]


def test_a_person_keeps_its_id_when_more_identities_of_it_are_found() -> None:
    few = assigned([identity("a"), identity("c", degrees=90)]).placements
    more = assigned([identity("a"), identity("b"), identity("c", degrees=90)]).placements
    assert {key: more[key] for key in few} == few


def test_a_video_with_the_content_of_an_earlier_one_is_rejected_and_names_it() -> None:
    rows = [identity("a", content="x"), identity("b", content="x"), identity("c", degrees=90)]
    assignment = assigned(rows)
    video = settled(rows, assignment)["b"]
    assert (video.status, video.reason, video.detail) == (
        Status.REJECTED,
        Reason.DUPLICATE_VIDEO,
        "same content as clips/a",
    )
    assert [track.reason for track in video.tracks] == [Reason.DUPLICATE_VIDEO, Reason.TRACK_TOO_SHORT]
    assert assignment.placements.keys() == {"a_00", "c_00"}
    assert is_consistent(rows, assignment)


def test_all_identities_of_a_person_are_kept_unless_configured_otherwise() -> None:
    assert assigned([identity("a"), identity("b", quality=-0.5)]).placements.keys() == {"a_00", "b_00"}


def test_only_the_best_identity_of_a_person_is_kept_on_request() -> None:
    rows = [identity("a", quality=-2.0), identity("b", quality=-1.0), identity("c", 0, 90, quality=-9.0)]
    assignment = assigned(rows, PEOPLE.model_copy(update={"keep": "best"}))
    assert assignment.placements.keys() == {"b_00", "c_00"}
    video = settled(rows, assignment)["a"]
    assert (video.reason, video.detail) == (Reason.DUPLICATE_PERSON, "b_00 shows the same person better")
    assert is_consistent(rows, assignment)


def test_of_equally_good_identities_the_first_is_kept() -> None:
    rows = [identity(name) for name in "ab"]
    assert assigned(rows, PEOPLE.model_copy(update={"keep": "best"})).placements.keys() == {"a_00"}


def test_a_video_that_keeps_another_identity_stays_accepted() -> None:
    rows = [identity("a", 0, quality=-2.0), identity("a", 1, 90), identity("b", quality=-1.0)]
    assignment = assigned(rows, PEOPLE.model_copy(update={"keep": "best"}))
    first = settled(rows, assignment)["a"]
    assert (first.status, first.identities) == (Status.ACCEPTED, 1)
    assert first.tracks[0].reason is Reason.DUPLICATE_PERSON
    assert is_consistent(rows, assignment)


def test_what_is_left_out_still_ties_origins_together() -> None:
    # The copy is from another origin, of which there is another clip: both origins show one footage.
    rows = [
        identity("a", content="x", origin="o1"),
        identity("b", content="x", origin="o2"),
        identity("c", degrees=90, origin="o2"),
    ]
    for fraction in (0.1, 0.3, 0.5, 0.7, 0.9):
        placements = assigned(rows, test_fraction=fraction).placements
        assert placements["a_00"].split is placements["c_00"].split


def test_a_copy_is_no_evidence() -> None:
    # With the copies of `a` counted, the mean of `c` to them would decide.
    alone = [identity("a"), identity("b", degrees=40), identity("c", degrees=80)]
    copies = [identity(f"a{number}", content="a") for number in range(6)]
    before, after = assigned(alone).placements, assigned([*alone, *copies]).placements
    assert {key: after[key] for key in before} == before


def test_no_identities_are_an_empty_assignment() -> None:
    found = assigned([])
    assert (found.placements, found.rejections) == ({}, {})


def test_the_findings_name_the_embedder_and_the_threshold() -> None:
    findings = assigned([identity("a"), identity("b")], test_fraction=0.0).findings
    assert (findings.embedder, findings.link_cosine) == ("sface", 0.5)
    assert [(pair.first, pair.second) for pair in findings.linked] == [("a_00", "b_00")]
    assert findings.notes


def test_copies_keep_what_is_known_of_whom_they_show() -> None:
    # Two persons, 20 degrees apart, in one frame; the other file has the better images of one of them.
    first, second = (filmed(take, times(0, 8)) for take in (1, 2))
    rows = [
        identity("a", 0, 0, seen_with=[1], fingerprint=first, image_bytes=9.0),
        identity("a", 1, 20, seen_with=[0], fingerprint=second, image_bytes=1.0),
        identity("b", 0, 0, fingerprint=first, image_bytes=1.0),
        identity("b", 1, 20, fingerprint=second, image_bytes=9.0),
    ]
    assignment = assigned(rows)
    assert {key: rejection.reason for key, rejection in assignment.rejections.items()} == {
        "a_01": Reason.NEAR_DUPLICATE,
        "b_00": Reason.NEAR_DUPLICATE,
    }
    placements = assignment.placements
    assert placements["a_00"].person_id != placements["b_01"].person_id
    assert is_consistent(rows, assignment)


def test_an_origin_is_not_lost_with_the_copy_that_had_it() -> None:
    take = filmed(1, times(0, 8))
    rows = [
        identity("a", origin="x", fingerprint=take, image_bytes=1.0),
        identity("c", fingerprint=take, image_bytes=9.0),
        identity("d", degrees=65, origin="x", fingerprint=filmed(2, times(0, 8))),
    ]
    placements = assigned(rows).placements
    assert placements.keys() == {"c_00", "d_00"}
    assert placements["c_00"].person_id == placements["d_00"].person_id


def test_footage_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        identity(
            f"{person}{copy}", 0, 60.0 * person, fingerprint=filmed(person, times(0, 8)), image_bytes=copy
        )
        for person in range(4)
        for copy in range(1, 4)
    ]
    whole = assigned(rows)
    assert whole.placements.keys() == {f"{person}3_00" for person in range(4)}
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 2)
    assert assigned(rows) == whole


def test_a_listed_video_that_is_a_copy_is_named() -> None:
    take = filmed(1, times(0, 8))
    rows = [identity("a", fingerprint=take), identity("b", fingerprint=take, image_bytes=1.0)]
    listed = ListedVideos({"b": ("clips/b",)})
    split = SplitRequest(Split(), SplitInputs(), listed, {})
    assignment = assign(table([*rows, identity("c", degrees=90)]), PEOPLE, split, Recognition("sface", 0.5))
    assert assignment.placements["a_00"].split is SplitName.TEST
    assert any("b (near_duplicate)" in note for note in assignment.findings.notes), assignment.findings.notes


@st.composite
def summaries(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for number in range(draw(st.integers(0, 20))):
        content = draw(st.sampled_from(["same", f"{number}", f"{number}"]))
        origin = draw(st.sampled_from([None, None, "o1", "o2", "o3"]))
        tracks = draw(st.integers(1, 3))
        for track in range(tracks if content != "same" else 1):
            degrees = draw(st.integers(0, 11)) * 30.0 + draw(st.floats(0, 12))
            quality = draw(st.integers(-3, 0)) * 1.0
            facts = {"content": content, "origin": origin, "quality": quality}
            facts["seen_with"] = [other for other in range(tracks) if other != track]
            rows.append(identity(f"v{number:02d}", track, degrees, **facts))
    return rows


@settings(max_examples=100, deadline=None)
@given(summaries(), st.sampled_from(["all", "best"]), st.floats(0, 1), st.randoms())
def test_nothing_is_in_both_splits_and_all_records_agree(
    rows: list[dict[str, Any]], keep: str, fraction: float, random: Any
) -> None:
    people = People(link_cosine=0.95, same_origin_cosine=0.9, keep=keep)  # type: ignore[arg-type]
    assignment = assigned(rows, people, fraction)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert assigned(table(rows).take(pa.array(order, pa.int64())), people, fraction) == assignment
    assert is_consistent(rows, assignment)

    kept = [row for row in rows if row["key"] in assignment.placements]
    for shared in (
        lambda row: assignment.placements[row["key"]].person_id,
        lambda row: row["video_id"].removeprefix("clips/"),
        lambda row: row["origin"] or row["key"],
    ):
        splits = {(shared(row), assignment.placements[row["key"]].split) for row in kept}
        assert max(Counter(name for name, _ in splits).values(), default=1) == 1
    people_of_video = Counter(
        (row["video_id"].removeprefix("clips/"), assignment.placements[row["key"]].person_id) for row in kept
    )
    assert max(people_of_video.values(), default=1) == 1  # all are seen in one frame
    if keep == "best":
        assert len({placement.person_id for placement in assignment.placements.values()}) == len(kept)


@pytest.mark.parametrize(("fraction", "split"), [(0.0, SplitName.TRAIN), (1.0, SplitName.TEST)])
def test_all_or_nothing_can_be_held_out(fraction: float, split: SplitName) -> None:
    placements = assigned(
        [identity(name, degrees=60.0 * n) for n, name in enumerate("abc")], test_fraction=fraction
    )
    assert {placement.split for placement in placements.placements.values()} == {split}
