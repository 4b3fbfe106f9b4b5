"""Gathers what happens in a build, in the driver; gives its state at any time.

The driver's main thread notes events, the thread that writes the state reads them: a lock is between the two. All
methods cost microseconds, because they are called for every video.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.monitor.job import submission_id
from pipeline.monitor.logs import redacted
from pipeline.monitor.operators import Left, Operator
from pipeline.monitor.state import BuildState, NodeState, State, VideoCounts
from pipeline.provenance import code_version

EVERY_S = 10.0
"""How often the state is written."""


@dataclass(frozen=True)
class BuildFacts:
    """What does not change while a build runs.

    Attributes:
        dataset: name of the dataset.
        curation: name of the directory of the staged files.
        command: that continues it.
    """

    dataset: str
    curation: str
    command: str = ""


@dataclass(frozen=True)
class Finished:
    """Some videos that were finished.

    Attributes:
        outcomes: how many have each status and reason; the reason of accepted ones is empty.
        seconds: status of each, and what an analyser took for it.
    """

    outcomes: Mapping[tuple[str, str], int]
    seconds: list[tuple[str, float]]


@dataclass
class _Node:
    name: str
    alive: bool = True
    room: int = 0
    analysers: int = 0
    videos: int = 0
    faults: int = 0
    last_fault: str = ""


class Monitor:
    """The events of a build so far."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._facts = BuildFacts("", "")
        self._job = submission_id()
        # Now: it may be gone later. That of a job is a temporary one of Ray's.
        self._directory = "" if self._job else str(Path.cwd())
        self._counted = 0
        self.build = ""
        """Distinguishes this run, as `build` in the lines that workers log."""
        self._started = time.time()
        self._state: State = "running"
        self._error: str | None = None
        self._operators: dict[str, Operator] = {}
        self._total = self._earlier = 0
        self._statuses: Counter[str] = Counter()
        self._reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._before: VideoCounts | None = None
        self._exact: tuple[Mapping[str, int], Mapping[str, Mapping[str, int]]] | None = None
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._items: Counter[str] = Counter()
        self._new_outcomes: Counter[tuple[str, str]] = Counter()
        self._new_seconds: list[tuple[str, float]] = []
        self._nodes: dict[str, _Node] = {}
        self._analysers: Callable[[], Mapping[str, int]] = dict
        self._passes = self._retried = self._faults = 0
        self.changed = threading.Event()
        """Set where the state is worth writing at once."""
        self.publish: Callable[[], None] = lambda: None
        """Publishes what is known as metrics now: to be called before Ray ends."""

    def begin_build(self, facts: BuildFacts, videos: int, earlier: int, before: BuildState | None) -> None:
        """Note a build whose work is planned.

        Args:
            facts: what does not change.
            videos: of the build.
            earlier: how many of them earlier runs have finished.
            before: the state that an earlier run left.
        """
        with self._lock:
            self._facts, self._total, self._earlier = facts, videos, earlier
            # A killed run may have finished more than it wrote.
            counted = before is not None and before.curation == facts.curation
            if before and counted and 0 < before.videos.finished <= earlier:
                self._before = before.videos
        self.changed.set()

    def end_build(self, state: State, error: str | None = None) -> None:
        """Note that the build ended."""
        with self._lock:
            self._state, self._error = state, error

    def begin(self, name: str, total: int | None, unit: str, left: Left | None = None) -> Operator:
        """Note that an operator begins."""
        operator = Operator(name, unit, total, left, begun=time.monotonic())
        with self._lock:
            self._operators.pop(name, None)
            self._operators[name] = operator
        self.changed.set()
        return operator

    def end(self, operator: Operator) -> None:
        """Note that an operator ended."""
        with self._lock:
            operator.ended = time.monotonic()
        self.changed.set()

    def video(
        self,
        node: str,
        status: str,
        reason: str,
        *,
        seconds: Mapping[str, float],
        items: Mapping[str, int],
        attempt: int,
    ) -> None:
        """Note a finished video.

        Args:
            node: Ray's id of the node that finished it.
            status: of the video.
            reason: why it is not accepted; empty when it is.
            seconds: that its stages took; empty where an earlier process had finished it.
            items: that were counted in it.
            attempt: number of the attempt that finished it, from 1.
        """
        with self._lock:
            self._statuses[status] += 1
            if reason:
                self._reasons[status][reason] += 1
            for stage, spent in seconds.items():
                self._seconds[stage] += spent
            self._items.update(items)
            self._new_outcomes[status, reason] += 1
            if seconds:
                self._new_seconds.append((status, sum(seconds.values())))
            self._retried += attempt > 1
            if node in self._nodes:
                self._nodes[node].videos += 1

    def finished(self, videos: int) -> None:
        """Note how many videos are finished, where some were not reported yet."""
        with self._lock:
            self._counted = videos

    def lost(self, status: str, reason: str) -> None:
        """Note that a video that was finished is not there."""
        with self._lock:
            self._statuses[status] -= 1
            if reason:
                self._reasons[status][reason] -= 1

    @property
    def lacks_counts(self) -> bool:
        """Whether some outcomes are not known: an earlier run was killed, or left no state."""
        counts = self.counts()
        return sum(counts.statuses.values()) != counts.finished

    def outcomes(self, outcomes: Mapping[tuple[str, str], int]) -> None:
        """Note the outcomes of all videos.

        Args:
            outcomes: how many have each status and reason; the reason of accepted ones is empty.
        """
        statuses: Counter[str] = Counter()
        reasons: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (status, reason), count in outcomes.items():
            statuses[status] += count
            if reason:
                reasons[status][reason] = count
        with self._lock:
            self._exact = statuses, reasons

    def new_pass(self) -> None:
        """Note that a pass over the unfinished videos begins."""
        with self._lock:
            self._passes += 1

    def nodes(self, nodes: Iterable[tuple[str, str, int]]) -> None:
        """Note the nodes of the cluster.

        Args:
            nodes: Ray's id, the name for people, and the number of analysers that have room, of those that live.
        """
        with self._lock:
            for node in self._nodes.values():
                node.alive = False
            for node_id, name, room in nodes:
                node = self._nodes.setdefault(node_id, _Node(name))
                node.alive, node.room = True, room

    @contextmanager
    def counting(self, analysers: Callable[[], Mapping[str, int]]) -> Iterator[None]:
        """Count the analysers within the block.

        Args:
            analysers: how many live on each node, by Ray's id; called from another thread.
        """
        self._analysers = analysers
        try:
            yield
        finally:
            self._analysers = dict

    def count_analysers(self) -> None:
        """Count the analysers now; what the count raises is passed on."""
        found = self._analysers()
        with self._lock:
            for node_id, node in self._nodes.items():
                node.analysers = found.get(node_id, 0)

    def fault(self, node: str, name: str, fault: str) -> None:
        """Note a fault of a machine.

        Args:
            node: Ray's id.
            name: for people.
            fault: its message.
        """
        with self._lock:
            self._faults += 1
            found = self._nodes.setdefault(node, _Node(name))
            found.faults += 1
            found.last_fault = redacted(fault)

    def newly_finished(self) -> Finished:
        """The videos that were finished since the call before."""
        with self._lock:
            found = Finished(self._new_outcomes, self._new_seconds)
            self._new_outcomes, self._new_seconds = Counter(), []
            return found

    def counts(self) -> VideoCounts:
        """How far the videos are, those of earlier runs included as far as they are known."""
        with self._lock:
            finished = max(self._earlier + self._statuses.total(), self._counted)
            if self._exact is not None:
                statuses, reasons = self._exact
            else:
                statuses, reasons = self._added()
            return VideoCounts(
                total=self._total,
                earlier=self._earlier,
                finished=finished,
                statuses={status: count for status, count in statuses.items() if count},
                reasons={
                    status: {reason: count for reason, count in each.items() if count}
                    for status, each in reasons.items()
                    if any(each.values())
                },
            )

    def _added(self) -> tuple[Mapping[str, int], Mapping[str, Mapping[str, int]]]:
        if self._before is None:
            return self._statuses, self._reasons
        reasons = {
            status: Counter(self._before.reasons.get(status, {})) + self._reasons.get(status, Counter())
            for status in self._before.reasons.keys() | self._reasons.keys()
        }
        return Counter(self._before.statuses) + self._statuses, reasons

    def state(self) -> BuildState:
        """The state now."""
        with self._lock:
            now = time.monotonic()
            at_work = [operator.name for operator in self._operators.values() if operator.ended is None]
            nodes = sorted(self._nodes.values(), key=lambda node: (-node.faults, node.name))
            return BuildState(
                state=self._state,
                error=None if self._error is None else redacted(self._error),
                dataset=self._facts.dataset,
                curation=self._facts.curation,
                code_version=code_version(),
                host=socket.gethostname(),
                pid=os.getpid(),
                directory=self._directory,
                job=self._job,
                build=self.build,
                command=redacted(self._facts.command),
                started=round(self._started, 3),
                updated=round(time.time(), 3),
                every_s=EVERY_S,
                operator=at_work[-1] if at_work and self._state == "running" else None,
                operators=[operator.state(now) for operator in self._operators.values()],
                videos=self.counts(),
                seconds={stage: round(spent, 3) for stage, spent in self._seconds.items()},
                items=dict(self._items),
                passes=self._passes,
                retried=self._retried,
                faults=self._faults,
                nodes=[NodeState(**vars(node)) for node in nodes],
            )
