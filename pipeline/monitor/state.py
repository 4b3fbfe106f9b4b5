"""What is known of a build while it runs and after: the content of `<output>/.staging/status.json`.

The driver replaces the file every few seconds, so a reader needs neither Ray nor the staged files. A build does
not depend on it; one that is continued takes over the counts of the runs before.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from pipeline.layout import STAGING
from shards.schema import Record
from storage.path import AnyPath

STATUS_JSON = "status.json"
State = Literal["running", "finished", "failed", "stopped"]


class OperatorState(Record):
    """An operator of the build, begun or done."""

    name: str
    unit: str
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    per_s: float | None = None
    """Recent rate, in units a second."""
    left_s: float | None = None


class VideoCounts(Record):
    """How far the videos are."""

    total: int = 0
    earlier: int = 0
    """Finished by earlier runs."""
    finished: int = 0
    """Finished, those of earlier runs included."""
    statuses: dict[str, int] = Field(default_factory=dict)
    """Finished videos by status. Fewer than `finished` where an earlier run left no counts."""
    reasons: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Status -> reason -> videos."""


class NodeState(Record):
    """A node of the cluster that has room for an analyser, or had."""

    name: str
    alive: bool = True
    room: int = 0
    """Analysers that it has room for."""
    analysers: int = 0
    """Analysers that live there."""
    videos: int = 0
    """Finished there in this run."""
    faults: int = 0
    last_fault: str = ""


class BuildState(Record):
    """The file."""

    version: Literal[1] = 1
    state: State = "running"
    error: str | None = None
    """Why it failed."""
    dataset: str
    """`name` of the configuration."""
    curation: str
    """Directory of the staged files."""
    code_version: str
    host: str
    pid: int
    directory: str
    """Working directory of the driver; empty for a job."""
    job: str = ""
    """Submission id of the job whose driver it is."""
    build: str = ""
    """Of this run: the field `build` of the lines that workers log."""
    command: str
    """The command that continues it."""
    started: float
    """Of this run: seconds since 1970, by the clock of the host."""
    updated: float
    every_s: float
    """How often `updated` changes while the build runs."""
    operator: str | None = None
    """The one that is at work."""
    operators: list[OperatorState] = Field(default_factory=list)
    videos: VideoCounts
    seconds: dict[str, float] = Field(default_factory=dict)
    """Stage of the curation -> seconds of analysers, of videos of this run."""
    items: dict[str, int] = Field(default_factory=dict)
    """What they hold: frames, corrupt_frames, faces, tracks, identities, bytes."""
    passes: int = 0
    retried: int = 0
    """Videos that were finished at a second or later attempt."""
    faults: int = 0
    nodes: list[NodeState] = Field(default_factory=list)
    """Those with the most faults first."""


def status_path(output: AnyPath) -> AnyPath:
    """The file of a build's state."""
    return output / STAGING / STATUS_JSON


def decode_state(data: bytes) -> BuildState | None:
    """The state in a file; None where another version of the code wrote it."""
    try:
        return BuildState.model_validate_json(data)
    except ValidationError:
        return None
