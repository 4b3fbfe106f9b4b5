"""Damaged identities count once, over all epochs and starts of the run; a stop ends a wait for data."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from damaged_data import damage
from tiny_models import mtd_config

from training.config import Config
from training.data.dataset import open_dataset
from training.data.needs import Needs
from training.data.stream import IdentityStream
from training.engine.collectives import Collectives
from training.engine.feed import Feed
from training.engine.processes import World, processes
from training.errors import Stopped

MTD = Needs(64, targets=True, masks=True)


@pytest.fixture
def world() -> Iterator[World]:
    with processes(deterministic=False) as joined:
        yield joined


def config(root: Path) -> Config:
    return mtd_config(
        data={"root": str(root), "targets": 2},
        batch=4,
        run={"per_process": 2, "decode_threads": 1, "prefetch": 1},
    )


def test_an_identity_counts_once_over_all_epochs_and_starts(
    world: World, dataset: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "copy"))
    key = damage(root)
    messages: list[str] = []

    def feed(stream: IdentityStream, damaged: dict[str, str]) -> Feed:
        return Feed(stream, Collectives(world), max_damaged=1, damaged=damaged, message=messages.append)

    data = open_dataset(str(root), retry_s=1.0)
    with closing(IdentityStream(data, config(root), MTD, rank=0, world_size=1)) as stream:
        first = feed(stream, {})
        fed = [first.next(step) for step in range(11)]  # four epochs
    assert sum(one.targets for one in fed) == 80  # it is met in each of them
    assert list(first.damaged) == [key]
    assert messages == [f"skipped: {first.damaged[key]}"]

    with closing(IdentityStream(data, config(root), MTD, rank=0, world_size=1, start_step=11)) as stream:
        again = feed(stream, first.damaged)
        assert sum(again.next(step).targets for step in range(11, 22)) == 80
    assert again.damaged == first.damaged
    assert len(messages) == 1


def test_a_stop_is_heeded_while_data_is_waited_for(
    world: World, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stall(_: str, stopped: threading.Event) -> None:
        stopped.wait()
        raise Stopped("closed")

    data = open_dataset(str(dataset), retry_s=1.0)
    monkeypatch.setattr(data, "fetch", stall)
    given = config(dataset)
    with closing(IdentityStream(data, given, MTD, rank=0, world_size=1, stopping=lambda: True)) as stream:
        feed = Feed(stream, Collectives(world), max_damaged=0, damaged={}, message=print)
        assert feed.next(0).stop
