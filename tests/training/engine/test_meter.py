"""Data wait and memory of a run are those of its slowest rank, on every rank."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from tiny_models import mtd_config
from trainers import each_of

from training.engine.collectives import Collectives
from training.engine.meter import Meter
from training.engine.processes import processes


def _figures(rank: int) -> Any:
    config = mtd_config()
    stream: Any = SimpleNamespace(waited_s=5.0)
    with processes(deterministic=False) as world:
        meter = Meter(config, stream, Collectives(world))
        stream.waited_s += 0.2 * rank  # only rank 1 waits
        time.sleep(0.4)
        began = meter._began_s
        figures = meter.figures(3)
        return figures, time.perf_counter() - began


def test_data_wait_and_memory_are_those_of_the_rank_that_needs_most() -> None:
    found = each_of(2, _figures)
    assert found[0][0]["memory/peak_gb"] == found[1][0]["memory/peak_gb"] > 0
    for figures, took_s in found:
        assert 0.2 / took_s <= figures["speed/data_wait"] < 0.501
