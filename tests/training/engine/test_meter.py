"""What holds a run up is what holds up its slowest process, and every process knows it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from trainers import each_of

from training.config import Config
from training.engine.consensus import Consensus
from training.engine.meter import Meter
from training.engine.processes import processes


def _figures(rank: int) -> Any:
    config = Config.model_validate(
        {
            "stage": "mtd",
            "output": "/nonexistent",
            "data": {"root": "/nonexistent"},
            "model": {"size": "tiny", "clip": "random"},
        }
    )
    stream: Any = SimpleNamespace(waited_s=5.0)
    with processes(deterministic=False) as world:
        meter = Meter(config, stream, Consensus(world))
        stream.waited_s += 0.2 * rank  # only the second process waits
        time.sleep(0.4)
        began = meter._began_s
        figures = meter.figures(3)
        return figures, time.perf_counter() - began


def test_waiting_for_data_and_memory_are_those_of_the_process_that_needs_most() -> None:
    found = each_of(2, _figures)
    assert found[0][0]["memory/peak_gb"] == found[1][0]["memory/peak_gb"] > 0
    for figures, took_s in found:
        assert 0.2 / took_s <= figures["speed/data_wait"] < 0.501
