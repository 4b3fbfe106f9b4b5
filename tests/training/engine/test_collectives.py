"""What one rank learns, all know; what ends one rank, ends all, with the same message."""

from __future__ import annotations

import time
from typing import Any

from trainers import each_of

from training.engine.collectives import Collectives
from training.engine.processes import processes
from training.errors import RunEnded, TrainingError


def _counts_and_stop(rank: int) -> Any:
    with processes(deterministic=False) as world:
        collectives = Collectives(world)
        first = collectives.all_reduce([rank + 1, -5])
        second = collectives.all_reduce([2**62 + rank], stop=rank == 1)
        gathered = collectives.all_gather({"rank": rank})
        sent = collectives.broadcast(lambda: f"made by {rank}")
        return first, second, gathered, sent


def test_numbers_are_added_up_and_one_request_to_stop_is_enough() -> None:
    for first, second, gathered, sent in each_of(2, _counts_and_stop):
        assert (first.stop, first.counts) == (False, [3, -10])
        assert (second.stop, second.counts) == (True, [-(2**63) + 1])  # 64 bits, wrapping around
        assert gathered == [{"rank": 0}, {"rank": 1}]
        assert sent == "made by 0"


def _failures(rank: int) -> Any:
    with processes(deterministic=False) as world:
        collectives = Collectives(world)
        messages = []
        for failing, text in (((1,), "no such folder"), ((0, 1), "the same"), ((0, 1), f"own {rank}")):
            try:
                with collectives.barrier():
                    if rank in failing:
                        raise TrainingError(text)
            except RunEnded as error:
                messages.append(str(error))
        messages.append(str(collectives.all_reduce([1]).counts))  # still in step
        return messages


def test_all_ranks_raise_the_same_message_which_names_the_failed_ranks() -> None:
    first, second = each_of(2, _failures)
    assert first == second
    assert first == [
        "rank 1: no such folder",
        "the same",
        "rank 0: own 0\nrank 1: own 1",
        "[2]",
    ]


def _ends_early(rank: int) -> Any:
    began = time.monotonic()
    try:
        with processes(deterministic=False) as world:
            collectives = Collectives(world)
            collectives.all_reduce()
            if rank == 1:
                return None
            time.sleep(1)
            collectives.all_reduce()
    except TrainingError as error:
        return isinstance(error, RunEnded), str(error), time.monotonic() - began
    return None


def test_a_rank_reports_at_once_that_another_has_ended() -> None:
    found, _ = each_of(2, _ends_early)
    ended_by_all, message, took_s = found
    assert not ended_by_all
    assert "another rank has ended" in message
    assert took_s < 60
