"""Reads the file of an offline run of Weights & Biases: a log of records in the format of LevelDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, RECORD_HEADER = 2**15, 7, 7
FULL, LAST = 1, 4


@dataclass
class OfflineRun:
    """What `wandb sync` would upload."""

    run_id: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    kinds: set[str] = field(default_factory=set)
    """Of all records."""


def read_offline_runs(output: Path) -> list[OfflineRun]:
    """The offline runs of an output directory, one for each start, in order."""
    return [_read(path) for path in sorted(output.glob("wandb/offline-run-*/run-*.wandb"))]


def _read(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    found = OfflineRun()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        found.kinds.add(kind)
        if kind == "run":
            found.run_id, found.project = record.run.run_id, record.run.project
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            found.history.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """The records, each put together from its fragments; blocks end with padding."""
    assert data[:4] == b":W&B"
    position, parts = FILE_HEADER, b""
    while position + RECORD_HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        start = position + RECORD_HEADER
        parts += data[start : start + length]
        position = start + length
        if kind in {FULL, LAST}:
            yield parts
            parts = b""
