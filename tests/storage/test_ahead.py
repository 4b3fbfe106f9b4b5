"""Results in order, only so many ahead, errors where they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.ahead import map_ahead


def test_results_come_in_order_though_the_first_takes_longest() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return 2 * item

    with ThreadPoolExecutor(4) as pool:
        assert list(map_ahead(slow_first, range(20), pool, ahead=4)) == [2 * item for item in range(20)]


def test_no_more_items_are_taken_than_the_reader_waits_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(lambda item: item, items(), pool, ahead=3)
        assert [next(results), next(results)] == [0, 1]
        assert taken == [0, 1, 2, 3, 4]
        results.close()  # type: ignore[attr-defined]


def test_an_error_is_raised_where_its_result_is_due_and_what_waits_is_not_begun() -> None:
    begun, go_on = [], threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("one")
        if item == 2:
            go_on.wait(10)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = map_ahead(work, range(9), pool, ahead=5)
        assert next(results) == 0
        with pytest.raises(ValueError, match="one"):
            next(results)
        go_on.set()
    assert begun in ([0, 1], [0, 1, 2])
