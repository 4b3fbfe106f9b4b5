"""A process that is killed when memory runs out has left a note before."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from pipeline.memory_watch import MemoryWatch, used_share


def test_the_share_in_use_is_what_the_machine_says() -> None:
    memory = psutil.virtual_memory()
    assert used_share() == pytest.approx(1 - memory.available / memory.total, abs=0.1)


def test_memory_that_runs_out_within_the_block_is_noted_once() -> None:
    used = 0.5
    noted: list[float] = []
    watch = MemoryWatch(lambda: used, limit=0.9)
    with watch.noting(lambda: noted.append(time.monotonic())):
        time.sleep(0.5)
        assert noted == []
        used = 0.95
        time.sleep(1.0)
        assert len(noted) == 1
    time.sleep(0.5)
    assert len(noted) == 1


def test_nothing_is_noted_outside_of_a_block() -> None:
    noted = threading.Event()
    watch = MemoryWatch(lambda: 1.0, limit=0.9)
    time.sleep(0.5)
    assert not noted.is_set()
    with watch.noting(noted.set):
        assert noted.wait(10)


@pytest.mark.parametrize(("threshold", "limit"), [("0.8", 0.75), (None, 0.9)])
def test_the_limit_is_just_below_the_one_at_which_ray_kills(
    monkeypatch: pytest.MonkeyPatch, threshold: str | None, limit: float
) -> None:
    if threshold is None:
        monkeypatch.delenv("RAY_memory_usage_threshold", raising=False)
    else:
        monkeypatch.setenv("RAY_memory_usage_threshold", threshold)
    assert MemoryWatch()._limit == pytest.approx(limit)
