"""Tracks of one person become one; two faces of one frame never do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_track_and_filter import LEFT, RIGHT, person, seen, track_of

from pipeline.stages.merge import mean_embedding, merge_tracks, seen_together
from pipeline.stages.track import Track


def stretch(who: int, start: int, frames: int, likeness: float = 1.0) -> Track:
    """A track of a person from one frame on."""
    return track_of([seen(LEFT, person(who, likeness), n / 5, frame=n) for n in range(start, start + frames)])


def spans(tracks: list[Track]) -> list[list[int]]:
    return [[o.frame for o in track.observations] for track in tracks]


def test_a_person_before_and_after_a_cutaway_is_one() -> None:
    merged = merge_tracks([stretch(0, 0, 5), stretch(1, 5, 4), stretch(0, 9, 6)], 0.6)
    assert spans(merged) == [[*range(5), *range(9, 15)], [*range(5, 9)]]
    assert [len(track.anchors) for track in merged] == [11, 4]


def test_two_faces_of_one_frame_are_never_one_person() -> None:
    twins = [stretch(0, 0, 6), stretch(0, 5, 6)]
    assert spans(merge_tracks(twins, 0.6)) == [list(range(6)), list(range(5, 11))]


def test_a_third_track_joins_no_two_that_were_seen_together() -> None:
    tracks = [stretch(0, 0, 4), stretch(0, 2, 4), stretch(0, 8, 4)]
    merged = merge_tracks(tracks, 0.6)
    assert sorted(map(len, spans(merged))) == [4, 8]
    assert spans(merged)[0][:4] == [0, 1, 2, 3]


def test_a_chain_of_lookalikes_is_not_one_person() -> None:
    # Neighbours have a cosine of .8, the ends of about .28.
    angles = [0.0, 0.6435, 1.287]
    vectors = [np.array([np.cos(a), np.sin(a), *[0.0] * 14], np.float32) for a in angles]
    tracks = [
        track_of([seen(LEFT, vector, n + i, frame=10 * i + n) for n in range(3)])
        for i, vector in enumerate(vectors)
    ]
    assert len(merge_tracks(tracks, 0.6)) == 2


def test_tracks_that_are_seen_in_one_frame_know_each_other() -> None:
    tracks = [stretch(0, 0, 4), stretch(1, 3, 4), stretch(2, 5, 3), stretch(0, 20, 3)]
    assert seen_together(tracks) == [{1}, {0, 2}, {1}, set()]
    assert seen_together([]) == []


def test_a_track_without_a_usable_face_stays_alone() -> None:
    blind = track_of([seen(RIGHT, None, 9.0, frame=60)])
    assert mean_embedding(blind) is None
    assert len(merge_tracks([stretch(0, 0, 3), blind, stretch(0, 70, 3)], 0.6)) == 2


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 12), st.sampled_from([0.7, 1.0])),
        max_size=7,
    )
)
def test_merging_loses_and_doubles_nothing(drawn: list[tuple[int, int, int, float]]) -> None:
    tracks = [stretch(*values) for values in drawn]
    merged = merge_tracks(tracks, 0.6)
    before = sorted(id(o) for track in tracks for o in track.observations)
    assert sorted(id(o) for track in merged for o in track.observations) == before
    for frames in spans(merged):
        assert frames == sorted(set(frames))
    assert spans(merge_tracks(merged, 0.6)) == spans(merged)
