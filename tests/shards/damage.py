"""Ways to damage a dataset on purpose, and what the verifier reports."""

from __future__ import annotations

import json
import pickle
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import shards_factory as factory

from shards.findings import Check
from shards.shard_check import SeenShard, ShardCheck
from shards.verify import verify

TEST, TRAIN_0, TRAIN_1 = (
    "test/mfhq-test-000000-g0000.tar",
    "train/mfhq-train-000000-g0000.tar",
    "train/mfhq-train-000001-g0000.tar",
)


def found(root: Path) -> set[tuple[Check, str]]:
    """What is found in this process, which is what tasks anywhere find."""
    findings = verify(root)
    assert verify(root, run=by_tasks) == findings
    return {(finding.check, finding.where) for finding in findings}


def by_tasks(
    function: Callable[[ShardCheck], SeenShard | None], tasks: Iterable[ShardCheck]
) -> Iterator[tuple[int, SeenShard | None]]:
    """Runs tasks as other processes do, the last one first: they and their results are pickled."""
    pickled = [pickle.dumps((function, task)) for task in tasks]
    for number, data in reversed(list(enumerate(pickled))):
        call, task = pickle.loads(data)  # noqa: S301 - made in the line above
        yield number, pickle.loads(pickle.dumps(call(task)))  # noqa: S301 - likewise


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def offset_of(shard: Path, member: str) -> tuple[int, int, int]:
    """Offsets of a member's header, its data and its padding."""
    with tarfile.open(shard) as tar:
        info = tar.getmember(member)
    return info.offset, info.offset_data, info.offset_data + info.size


def change_shard(root: Path, name: str, change: Callable[[factory.Shard], None]) -> None:
    shard = factory.Shard.take_apart(root / name)
    change(shard)
    shard.put_together()


def replace_member(root: Path, shard: str, member: str, data: bytes) -> None:
    def change(taken: factory.Shard) -> None:
        taken.members[taken.index(member)] = (member, data)

    change_shard(root, shard, change)


def change_record(root: Path, shard: str, sample: str, /, **changes: Any) -> None:
    taken = factory.Shard.take_apart(root / shard)
    record = json.loads(taken.members[taken.index(f"{sample}.json")][1])
    record.update(changes)
    data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    replace_member(root, shard, f"{sample}.json", data)
