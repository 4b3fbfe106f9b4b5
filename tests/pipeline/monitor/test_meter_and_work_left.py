"""Rates are those of the last minutes, and the time left follows the work and not the number of videos."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitor.meter import Meter
from pipeline.monitor.work_left import WorkLeft, length_of
from pipeline.sources.manifest import Video


def video(number: int, size: int, source: str = "a", **more: object) -> Video:
    name = f"{source}/{number}.mp4"
    known = {"video_id": name, "source": source, "uri": name, "path": name, "bytes": size, "modified_ns": 0}
    return Video.model_validate(known | more)


def test_the_rate_is_that_of_the_last_minutes() -> None:
    meter = Meter(window_s=120, least=20)
    done = 0
    for second in range(3600):  # an hour at 10 a second, then an hour at 1 a second
        meter.add(second, done := done + 10)
    for second in range(3600, 7200):
        meter.add(second, done := done + 1)
    assert meter.rate(7200) == pytest.approx(1, rel=0.02)


def test_slow_work_is_measured_over_a_longer_time() -> None:
    meter = Meter(window_s=120, least=20)
    for number in range(100):
        meter.add(600.0 * number, number)
    assert meter.rate(600 * 99) == pytest.approx(1 / 600)


def test_the_rate_falls_while_nothing_is_done() -> None:
    meter = Meter()
    for second in range(300):
        meter.add(second, second)
    assert meter.rate(300) == pytest.approx(1, rel=0.05)
    assert (meter.rate(3000) or 0) < 0.1


def test_there_is_no_rate_before_two_results() -> None:
    meter = Meter()
    assert meter.rate(1) is None
    meter.add(1, 5)
    assert meter.rate(9) is None


@given(st.lists(st.floats(0.01, 50), min_size=2, max_size=200))
def test_the_rate_of_steady_work_does_not_depend_on_when_it_is_noted(steps: list[float]) -> None:
    meter = Meter()
    now = 0.0
    for step in steps:
        now += step
        meter.add(now, 3 * now)
    assert meter.rate(now) == pytest.approx(3)


def test_time_left_follows_the_bytes_and_not_the_number() -> None:
    videos = [video(number, size) for number, size in enumerate([10_000_000] * 50 + [100_000] * 950)]
    left, now = WorkLeft(videos), 0.0
    for each in videos[:40]:
        now += 10.0  # one analyser, a second a megabyte
        left.finish(each, 10.0, now)
    told = left.left_s(now)
    by_number = now / 40 * 960
    true = 10 * 10.0 + 950 * 0.1
    assert by_number > 40 * true
    assert told is not None
    assert true < told < 2 * true  # each video is taken to have an overhead as well


def test_more_analysers_take_less_time() -> None:
    videos = [video(number, 1_000_000) for number in range(400)]
    told = []
    for analysers in (1, 8):
        left = WorkLeft(videos)
        for number, each in enumerate(videos[:80]):
            left.finish(each, 10.0, 10.0 * (number // analysers + 1))
        told.append(left.left_s(10.0 * (80 // analysers)))
    assert told[0] == pytest.approx(3200, rel=0.1)
    assert told[1] == pytest.approx(400, rel=0.25)


def test_the_lengths_that_a_source_states_count_before_bytes() -> None:
    assert length_of(video(1, 7, span_s=(2.0, 5.5))) == ("s", 3.5)
    assert length_of(video(1, 7, span_frames=(10, 19))) == ("frames", 10.0)
    assert length_of(video(1, 7)) == ("bytes", 7.0)


def test_each_source_has_its_own_figures() -> None:
    slow = [video(number, 1000, "slow") for number in range(20)]
    fast = [video(number, 1000, "fast") for number in range(20)]
    left = WorkLeft([*slow, *fast])
    for number in range(10):
        left.finish(slow[number], 9.0, 10.0 * number + 9)
        left.finish(fast[number], 1.0, 10.0 * number + 10)
    for each in fast[10:]:
        left.finish(each, 1.0, 100.0)
    assert left.left_s(110.0) == pytest.approx(90, rel=0.2)


def test_a_source_of_which_nothing_is_finished_is_taken_to_be_like_the_others() -> None:
    known = [video(number, 1000) for number in range(10)]
    left = WorkLeft([*known, *(video(n, 1000, "b") for n in range(5)), video(1, 9, "c", span_s=(0, 9))])
    for number, each in enumerate(known):
        left.finish(each, 2.0, 2.0 * number)
    assert left.left_s(18.0) == pytest.approx(12, rel=0.15)


def test_nothing_is_told_before_something_is_known_and_a_lost_video_counts_again() -> None:
    videos = [video(number, 1000) for number in range(4)]
    left = WorkLeft(videos)
    assert left.left_s(5) is None
    left.finish(videos[0], 0.0, 5)  # an earlier process had finished it
    assert left.left_s(6) is None
    left.finish(videos[1], 1.0, 6)
    left.finish(videos[2], 1.0, 7)
    before = left.left_s(7)
    left.lose(videos[2])
    after = left.left_s(7)
    assert before is not None
    assert after == pytest.approx(2 * before)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_what_is_left_reaches_zero_when_all_are_finished_in_any_order(
    sizes: list[int], random: object
) -> None:
    videos = [video(number, size) for number, size in enumerate(sizes)]
    left = WorkLeft(videos)
    random.shuffle(videos)  # type: ignore[attr-defined]
    for number, each in enumerate(videos):
        left.finish(each, 1.0, float(number))
    told = left.left_s(float(len(videos)))
    assert told is None or abs(told) < 1e-3


def test_other_threads_may_ask_at_any_time() -> None:
    videos = [video(number, number, f"s{number % 50}") for number in range(5000)]
    left, ended, errors = WorkLeft(videos), threading.Event(), []

    def ask() -> None:
        try:
            while not ended.is_set():
                left.left_s(1e6)
        except Exception as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for number, each in enumerate(videos):
        left.finish(each, 1.0, float(number))
    ended.set()
    asking.join()
    assert errors == []
