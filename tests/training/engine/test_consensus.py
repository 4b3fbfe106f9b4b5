"""What one process learns, all know; what ends one, ends all, with the same words."""

from __future__ import annotations

import time
from typing import Any

from trainers import each_of

from training.engine.consensus import Consensus
from training.engine.processes import processes
from training.errors import RunEnded, TrainingError


def _counts_and_stop(rank: int) -> Any:
    with processes(deterministic=False) as world:
        consensus = Consensus(world)
        first = consensus.agree([rank + 1, -5])
        second = consensus.agree([2**62 + rank], stop=rank == 1)
        gathered = consensus.gather({"rank": rank})
        led = consensus.from_leader(lambda: f"made by {rank}")
        return first, second, gathered, led


def test_numbers_are_added_up_and_one_request_to_stop_is_enough() -> None:
    for first, second, gathered, led in each_of(2, _counts_and_stop):
        assert (first.stop, first.counts) == (False, [3, -10])
        assert (second.stop, second.counts) == (True, [-(2**63) + 1])  # 64 bits, wrapping around
        assert gathered == [{"rank": 0}, {"rank": 1}]
        assert led == "made by 0"


def _failures(rank: int) -> Any:
    with processes(deterministic=False) as world:
        consensus = Consensus(world)
        said = []
        for failing, text in (((1,), "no such folder"), ((0, 1), "the same"), ((0, 1), f"own {rank}")):
            try:
                with consensus.together():
                    if rank in failing:
                        raise TrainingError(text)
            except RunEnded as error:
                said.append(str(error))
        said.append(str(consensus.agree([1]).counts))  # they are still together
        return said


def test_all_raise_the_same_and_the_message_says_on_which_process_it_is_so() -> None:
    first, second = each_of(2, _failures)
    assert first == second
    assert first == [
        "process 1: no such folder",
        "the same",
        "process 0: own 0\nprocess 1: own 1",
        "[2]",
    ]


def _last_one_standing(rank: int) -> Any:
    began = time.monotonic()
    try:
        with processes(deterministic=False) as world:
            consensus = Consensus(world)
            consensus.agree()
            if rank == 1:
                return None
            time.sleep(1)
            consensus.agree()
    except TrainingError as error:
        return isinstance(error, RunEnded), str(error), time.monotonic() - began
    return None


def test_a_process_whose_partner_has_gone_says_so_at_once() -> None:
    found, _ = each_of(2, _last_one_standing)
    ended_by_all, message, took_s = found
    assert not ended_by_all
    assert "another process of the run has gone" in message
    assert took_s < 60
