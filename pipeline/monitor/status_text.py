"""The status of a build as text."""

from __future__ import annotations

import time

from pipeline.monitor.state import BuildState, NodeState, OperatorState
from pipeline.monitor.status import Status
from settings.units import duration, rate
from shards.schema import Status as Outcome

MOST_NODES = 5
"""Nodes with faults that are named."""
MOST_STAGES = 6
WIDTH = 12
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def status_text(status: Status) -> str:
    """What `mfhq status` prints: a heading, then a line for each subject."""
    lines = [_heading(status)]
    state = status.state
    if status.condition == "finished" and status.metadata is not None:
        lines += _finished(status)
    elif state is not None:
        lines += _progress(state, running=status.condition == "running") + _videos(state)
        if status.metadata is not None:
            counts = status.metadata.counts
            lines.append(_row("dataset", f"a complete one is there, with {counts.images:,} images"))
    lines += _stages(status)
    if state is not None:
        lines += _cluster(state, running=status.condition == "running")
    return "\n".join(lines + _continue(status))


def _heading(status: Status) -> str:
    output, state = status.output, status.state
    signs = "" if status.silent_s is None else f"; last update {duration(status.silent_s)} ago"
    match status.condition:
        case "planning":
            return f"{output}: a build begins, {status.owner or 'unknown process'}. It lists its videos"
        case "running":
            owner = status.owner or (f"process {state.pid} on {state.host}" if state else "")
            since = f" for {duration(time.time() - state.started)}" if state else ""
            return f"{output}: running{since}, {owner}{signs}"
        case "finished":
            when = f" {duration(time.time() - state.updated)} ago" if state else ""
            took = f", the last run took {duration(state.updated - state.started)}" if state else ""
            return f"{output}: finished{when}{took}"
        case "unknown":
            return f"{output}: not finished. The build there left no state"
        case "killed":
            return f"{output}: killed: its process ended without a message{signs}"
        case ended:
            when = f" {duration(time.time() - state.updated)} ago" if state else ""
            return f"{output}: {ended}{when}"


def _row(subject: str, text: str) -> str:
    return f"{subject:<{WIDTH}}{text}"


def _progress(state: BuildState, *, running: bool) -> list[str]:
    lines = [_row("error", state.error)] if state.error else []
    at_work = [operator for operator in state.operators if operator.name == state.operator]
    # Where it ended, when it did not end well.
    shown = at_work or (state.operators[-1:] if state.state != "finished" else [])
    return lines + [_row(operator.name, _operator(operator, running=running)) for operator in shown]


def _operator(operator: OperatorState, *, running: bool) -> str:
    unit = f" {operator.unit}" if operator.unit else ""
    if operator.name == "start":
        return f"Ray, and the networks in every process, for {duration(operator.seconds)}"
    if not operator.total:
        return f"{operator.done:,}{unit}"
    share = f"{operator.done:,} of {operator.total:,}{unit} ({operator.done / operator.total:.0%})"
    if not running:
        return f"{share} in {duration(operator.seconds)}"
    speed = f", {rate(operator.per_s, operator.unit)}" if operator.per_s and operator.unit else ""
    left = "" if operator.left_s is None else f", about {duration(operator.left_s)} left"
    return f"{share} in {duration(operator.seconds)}{speed}{left}"


def _videos(state: BuildState) -> list[str]:
    videos = state.videos
    counts = "  ".join(f"{videos.statuses.get(status, 0):,} {status.value}" for status in Outcome)
    unknown = videos.finished - sum(videos.statuses.values())
    more = f"  {unknown:,} not counted yet" if unknown > 0 else ""
    earlier = f"  ({videos.earlier:,} by earlier runs)" if videos.earlier else ""
    lines = [_row("videos", f"{videos.finished:,} of {videos.total:,}: {counts}{more}{earlier}")]
    for status in (Outcome.REJECTED, Outcome.FAILED):
        if reasons := videos.reasons.get(status.value):
            ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            lines.append(_row(status.value, ", ".join(f"{count:,} {reason}" for reason, count in ordered)))
    items = [(name, state.items.get(name, 0)) for name in ("frames", "faces", "tracks", "identities")]
    if any(count for _, count in items):
        bytes_read = _size(state.items.get("bytes", 0))
        found = ", ".join(f"{count:,} {name}" for name, count in items)
        lines.append(_row("this run", f"{bytes_read} of files: {found}"))
    return lines


def _finished(status: Status) -> list[str]:
    from pipeline.summary import Build, summary

    assert status.metadata is not None  # noqa: S101 - the caller has looked
    return summary(
        status.output, Build(status.metadata, status.output / "report" / "index.html")
    ).splitlines()


def _stages(status: Status) -> list[str]:
    whole = sum(status.seconds.values())
    if not whole:
        return []
    ordered = sorted(status.seconds.items(), key=lambda item: -item[1])
    shown = [f"{stage} {spent / whole:.0%}" for stage, spent in ordered[:MOST_STAGES]]
    others = sum(spent for _, spent in ordered[MOST_STAGES:])
    shown += [f"others {others / whole:.0%}"] if others else []
    return [_row("stages", f"{', '.join(shown)} of {duration(whole)} of analysers")]


def _cluster(state: BuildState, *, running: bool) -> list[str]:
    lines = []
    able = [node for node in state.nodes if node.room]
    if able and running:
        alive = [node for node in able if node.alive]
        lost = f", {len(able) - len(alive)} lost" if len(able) > len(alive) else ""
        at_work = (
            f"{sum(node.analysers for node in alive):,} analysers, room for {sum(n.room for n in alive):,}"
        )
        lines.append(_row("nodes", f"{len(alive):,}{lost}: {at_work}"))
    if state.retried:
        lines.append(_row("retries", f"{_many(state.retried, 'video')} took more than one attempt"))
    if state.passes > 1:
        lines.append(_row("passes", f"{state.passes}, because some videos were lost on the way"))
    faulty = [node for node in state.nodes if node.faults]
    if faulty:
        lines.append(
            _row("faults", f"{state.faults:,} on {_many(len(faulty), 'node')}, each with its last one:")
        )
        lines += [f"  {_fault(node)}" for node in faulty[:MOST_NODES]]
        lines += [f"  and {_many(len(faulty) - MOST_NODES, 'more node')}"] if len(faulty) > MOST_NODES else []
    return lines


def _fault(node: NodeState) -> str:
    lost = "" if node.alive else ", lost"
    return f"{node.name}{lost}, {_many(node.faults, 'fault')}: {node.last_fault}"


def _continue(status: Status) -> list[str]:
    if status.condition not in {"stopped", "killed", "failed", "unknown"}:
        return []
    state = status.state
    if state is None or not state.command:
        return ["", "The command of the build continues it."]
    where = f"in {state.directory} on {state.host}" if state.directory else "in a checkout of the project"
    return ["", f"To continue, {where}:", f"  {state.command}"]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _size(size: float) -> str:
    unit, name = next((each for each in _UNITS if size >= each[0]), (1e6, "MB"))
    return f"{size / unit:.1f} {name}"
