"""The same footage is found whatever its span and the moments that are analysed; other footage is not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from footage import filmed, times
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.people.near_duplicates import Match, near_duplicates


def compare(first: bytes, second: bytes) -> Match | None:
    found = near_duplicates([first, second], np.array([(0, 1)]))
    return found[0] if found else None


@settings(max_examples=40, deadline=None)
@given(
    take=st.integers(0, 10**6),
    cut_s=st.floats(0, 5),
    seconds=st.floats(4, 12),
    fps=st.sampled_from([5.0, 6.0, 7.5]),
)
def test_a_span_of_the_same_footage_is_found_at_its_place(
    take: int, cut_s: float, seconds: float, fps: float
) -> None:
    match = compare(filmed(take, times(0, cut_s + seconds)), filmed(take, times(cut_s, seconds, fps), seed=1))
    assert match is not None
    assert match.offset_s == pytest.approx(-cut_s, abs=0.13)
    assert match.share > 0.9
    assert match.shared_s == pytest.approx(seconds, abs=0.5)


def test_spans_that_overlap_are_found_when_they_share_half_of_the_shorter() -> None:
    first = filmed(1, times(0, 10))
    assert compare(first, filmed(1, times(5, 8))) is not None
    assert compare(first, filmed(1, times(6.5, 8))) is None


def test_other_takes_are_not_found() -> None:
    takes = [filmed(take, times(0, seconds)) for take in range(60) for seconds in (3, 8)]
    pairs = [(a, b) for a, b in combinations(range(len(takes)), 2) if a // 2 != b // 2]
    assert len(pairs) == 7080
    assert near_duplicates(takes, np.array(pairs)) == []


def test_what_is_too_short_or_too_still_is_not_found() -> None:
    assert compare(filmed(1, times(0, 2)), filmed(1, times(0, 2))) is None
    still = [filmed(1, times(0, 9), still=0.02, seed=seed) for seed in range(2)]
    assert compare(*still) is None


def test_equal_fingerprints_are_equal_footage_even_when_nothing_but_noise_moves() -> None:
    match = compare(*[filmed(1, times(0, 9), still=0.0)] * 2)
    assert match is not None
    assert (match.offset_s, match.share, match.score) == (0.0, 1.0, 1.0)


def test_a_clip_is_found_in_a_long_video_that_is_analysed_once_a_second() -> None:
    long = filmed(3, times(0, 400, per_second=1.0))
    clip = filmed(3, times(123.4, 20), seed=1)
    match = compare(long, clip)
    assert match is not None
    assert match.offset_s == pytest.approx(-123.4, abs=0.13)
    assert compare(long, filmed(4, times(123.4, 20))) is None


def test_a_gap_is_no_measurement() -> None:
    # In the middle the face is turned away; only the known parts are compared.
    seen = np.concatenate([times(0, 3), times(8, 3)])
    match = compare(filmed(5, times(0, 11)), filmed(5, seen, seed=1))
    assert match is not None
    assert match.shared_s == pytest.approx(6, abs=0.6)


def test_the_order_of_two_tracks_turns_the_result_round_and_changes_nothing_else() -> None:
    tracks = [filmed(2, times(0, 9)), filmed(2, times(2.21, 6.5, 7.5), seed=1)]
    (match,) = near_duplicates(tracks, np.array([(0, 1)]))
    (turned,) = near_duplicates(tracks[::-1], np.array([(1, 0)]))
    assert turned.offset_s == -match.offset_s
    assert (turned.first_s, turned.second_s) == (match.second_s, match.first_s)
    assert (turned.shared_s, turned.score) == (match.shared_s, match.score)


def test_the_result_of_a_pair_does_not_depend_on_other_pairs() -> None:
    lengths = [4, 6, 9, 15, 40]
    tracks = [filmed(n % 7, times(n % 3, lengths[n % 5]), seed=n) for n in range(70)]
    pairs = np.array(list(combinations(range(70), 2)))
    found = near_duplicates(tracks, pairs)
    assert len(found) > 100
    assert near_duplicates(tracks, pairs[::-1, ::-1]) == found
    for match in found[::25]:
        assert near_duplicates(tracks, np.array([(match.first, match.second)])) == [match]


def test_a_track_without_a_fingerprint_has_no_match() -> None:
    tracks = [b"", filmed(1, times(0, 9)), filmed(1, np.array([0.0])), b""]
    assert near_duplicates(tracks, np.array([(0, 1), (1, 2), (0, 3), (1, 1)])) == []
    assert near_duplicates(tracks, np.zeros((0, 2), np.int64)) == []


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="pairs name rows 0 to 2 of 2 fingerprints"):
        near_duplicates([b"", b""], np.array([(0, 2)]))
    with pytest.raises(ValueError, match="a fingerprint of 35 bytes is not made of samples of 34"):
        near_duplicates([b"x" * 35, b""], np.array([(0, 1)]))
