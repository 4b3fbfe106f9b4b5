"""Finds out how far the build in an output is, from its state file, its lock and its dataset alone."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import BuildError
from pipeline.layout import STAGING
from pipeline.lock import LOCK, OWNER, is_locked
from pipeline.monitor.state import BuildState, decode_state, status_path
from shards.layout import DATASET_JSON
from shards.metadata import DatasetMetadata
from storage.errors import NoSuchFile, StorageError
from storage.path import AnyPath, ObjectPath, modified_ns

SILENT_S = 60.0
"""Where there is no lock to look at, a build that wrote nothing for so long is taken for a killed one."""
TIMINGS = "report/timings.parquet"
Condition = Literal["planning", "running", "stopped", "killed", "failed", "finished", "unknown"]
"""`planning`: the build holds the output, and has not written a state yet. `killed`: it ended without writing how.
`unknown`: it wrote no state, as older versions do."""


@dataclass(frozen=True)
class Status:
    """How far a build is.

    Attributes:
        output: of the build.
        condition: of its last run.
        owner: the process that holds the output; empty when none does.
        state: that the last run has written.
        silent_s: seconds since the last update, by the clock of this machine.
        metadata: of the dataset that is there.
        seconds: of all analysers by stage; of a finished build over all of its runs.
    """

    output: AnyPath
    condition: Condition
    owner: str
    state: BuildState | None
    silent_s: float | None
    metadata: DatasetMetadata | None
    seconds: dict[str, float]


def read_status(output: AnyPath) -> Status:
    """The status of the build in an output.

    Raises:
        BuildError: there is none.
        DatasetError: the dataset there is damaged.
        StorageError: the object store cannot be read.
    """
    state, touched_s = _state(output)
    has_dataset = (output / DATASET_JSON).is_file()
    if state is None and not has_dataset and not (output / STAGING).is_dir():
        raise BuildError(_no_build(output))
    held, owner, renewed_s = _hold(output, touched_s)
    condition = _condition(state, held=held, owner=owner, has_dataset=has_dataset)
    signs = [sign for sign in (touched_s, renewed_s) if sign is not None]
    metadata = None
    if has_dataset and not held:
        from shards.reader import read_metadata

        metadata = read_metadata(output)
    seconds = dict(state.seconds) if state else {}
    if condition == "finished":
        seconds = _stored_seconds(output) or seconds
    return Status(
        output,
        condition,
        owner if held else "",
        None if condition == "planning" else state,
        max(0.0, time.time() - max(signs)) if signs else None,
        metadata,
        seconds,
    )


def _state(output: AnyPath) -> tuple[BuildState | None, float | None]:
    """The state file, and when it was written: seconds since 1970."""
    path = status_path(output)
    try:
        written = modified_ns(path)
        return decode_state(path.read_bytes()), None if written is None else written / 1e9
    except StorageError as error:
        if isinstance(error, NoSuchFile):
            return None, None
        raise
    except OSError:
        return None, None


def _hold(output: AnyPath, touched_s: float | None) -> tuple[bool, str, float | None]:
    """Whether a build holds the output, which process does, and the time of its last update."""
    if isinstance(output, ObjectPath):
        from pipeline.lease import DEAD_AFTER_S, owner_of

        renewed = modified_ns(output / STAGING / OWNER)
        if renewed is None:
            return False, "", None
        return time.time() - renewed / 1e9 < DEAD_AFTER_S, owner_of(output / STAGING / OWNER), renewed / 1e9
    lock, owner = output / STAGING / LOCK, output / STAGING / OWNER
    # A file system without locks, or a lock that this user may not look at.
    marked = owner.exists()
    try:
        if is_locked(output):
            return True, _text(lock), None
    except OSError:
        marked = marked or lock.exists()
    return marked and time.time() - (touched_s or 0.0) < SILENT_S, _text(owner) or _text(lock), None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200]
    except OSError:
        return ""


def _condition(state: BuildState | None, *, held: bool, owner: str, has_dataset: bool) -> Condition:
    if held:
        of_this_run = state is not None and (not owner or owner == f"process {state.pid} on {state.host}")
        # In its last moments, a build has written how it ended and still holds the output.
        return "running" if of_this_run else "planning"
    if state is None:
        return "finished" if has_dataset else "unknown"
    if state.state == "running":
        return "killed"
    if state.state == "finished" and not has_dataset:
        return "unknown"
    return state.state


def _no_build(output: AnyPath) -> str:
    if not output.is_dir():
        what = "is not a directory" if isinstance(output, Path) else "holds nothing"
        return f"{output} {what}. Pass the output of a build: a directory or a URL."
    return f"{output} is not the output of a build: it has neither {STAGING} nor {DATASET_JSON}."


def _stored_seconds(output: AnyPath) -> dict[str, float]:
    """Seconds of a finished build by stage, of all videos; empty when they are not stored."""
    import pyarrow.compute as pc

    from pipeline.report import timings

    found: Counter[str] = Counter()
    for batch in timings.kept(output / TIMINGS) or ():
        spent = pc.list_flatten(batch["seconds"].combine_chunks())
        for step in pc.unique(spent.field("step")).to_pylist():
            of_step = spent.filter(pc.equal(spent.field("step"), step))
            found[step] += pc.sum(of_step.field("seconds")).as_py()
    return dict(found)


def as_json(status: Status) -> dict[str, Any]:
    """The status as one JSON object."""
    from pipeline.summary import reasons_of

    metadata = status.metadata
    content: dict[str, Any] = {
        "output": str(status.output),
        "state": status.condition,
        "owner": status.owner or None,
        "silent_s": None if status.silent_s is None else round(status.silent_s, 1),
        "build": None if status.state is None else status.state.model_dump(mode="json"),
        "stage_seconds": status.seconds,
        "dataset": None,
    }
    if metadata is not None:
        content["dataset"] = {
            **metadata.counts.model_dump(mode="json"),
            "name": metadata.name,
            "version": metadata.version,
            "generation": metadata.generation,
            "code_version": metadata.provenance.code_version,
            "reasons": {status: dict(found) for status, found in reasons_of(status.output).items() if found},
            "shards": len(metadata.shards),
            "bytes": sum(shard.bytes for shard in metadata.shards),
        }
    return content
