"""Which frames damage reaches, given packets and frames alone."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.decode.damage import DamageTracker


def sound(
    shown: list[int],
    keys: set[int],
    damaged: set[int] = frozenset(),
    holes: set[int] = frozenset(),  # type: ignore[assignment]
) -> list[int]:
    """Packets of the sound frames, given the packets in the order in which their frames are shown."""
    tracker = DamageTracker()
    for packet in damaged:
        tracker.damage(packet)
    for packet in holes:
        tracker.hole_before(packet)
    return [packet for packet in shown if tracker.show(packet, packet in keys)]


def test_an_intact_stream_loses_nothing() -> None:
    assert sound([0, 2, 1, 4, 3], keys={0}) == [0, 2, 1, 4, 3]


def test_damage_reaches_up_to_the_next_key_frame() -> None:
    assert sound(list(range(12)), keys={0, 4, 8}, damaged={5}) == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_a_damaged_key_frame_ends_nothing() -> None:
    assert sound(list(range(12)), keys={0, 4, 8}, damaged={2, 4}) == [0, 1, 8, 9, 10, 11]


def test_damage_travels_in_decode_order_and_not_in_that_of_showing() -> None:
    # Packet 1 is shown after 2 and 3, which are predicted from it.
    assert sound([0, 2, 3, 1, 5, 6, 4], keys={0}, damaged={1}) == [0]
    assert sound([0, 2, 3, 1, 5, 6, 4], keys={0}, damaged={3}) == [0, 2]


def test_leading_pictures_of_an_open_group_depend_on_the_group_before() -> None:
    # Packet 4 is a key frame; 5 and 6 are decoded after it and shown before it.
    shown = [0, 2, 3, 1, 5, 6, 4, 7]
    assert sound(shown, keys={0, 4}) == shown
    assert sound(shown, keys={0, 4}, damaged={2}) == [0, 4, 7]
    # The key frame itself is whole. What comes behind it might be spared, were it known to be no reference.
    assert sound(shown, keys={0, 4}, damaged={5}) == [0, 2, 3, 1, 4]


def test_what_is_shown_behind_a_corrupt_frame_is_corrupt_even_if_decoded_before_it() -> None:
    # The decoder may notice late: packet 1 is decoded before the damaged packet 2 and shown after it.
    assert sound([0, 2, 1, 4, 3], keys={0}, damaged={2}) == [0]


def test_a_missing_frame_ends_what_is_shown_behind_it_up_to_the_next_key_frame() -> None:
    tracker = DamageTracker()
    assert tracker.show(0, key=True)
    tracker.miss()
    assert not tracker.show(1, key=False)
    assert tracker.show(4, key=True)
    assert tracker.show(5, key=False)


def test_a_hole_reaches_the_frames_behind_it_but_not_the_key_frame_behind_it() -> None:
    assert sound(list(range(8)), keys={0, 4}, holes={2}) == [0, 1, 4, 5, 6, 7]
    assert sound(list(range(8)), keys={0, 4}, holes={4}) == list(range(8))


def test_a_stream_that_begins_between_key_frames_loses_its_head() -> None:
    assert sound(list(range(8)), keys={3}) == [3, 4, 5, 6, 7]


def test_a_stream_without_key_frames_gives_nothing() -> None:
    assert sound(list(range(8)), keys=set()) == []


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_without_reordering_a_frame_is_sound_when_all_is_well_since_the_last_intact_key_frame(
    packets: list[tuple[bool, bool]],
) -> None:
    keys = {number for number, (key, _) in enumerate(packets) if key}
    damaged = {number for number, (_, bad) in enumerate(packets) if bad}
    expected = []
    for packet in range(len(packets)):
        since = max((key for key in keys - damaged if key <= packet), default=None)
        if since is not None and not damaged & set(range(since, packet + 1)):
            expected.append(packet)
    assert sound(list(range(len(packets))), keys, damaged) == expected
