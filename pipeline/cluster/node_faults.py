"""Which nodes fail, and when that is too much: one bad node costs its own work, a common cause ends the build.

A fault (a lost mount, a broken GPU, a full disk) says nothing about the video it happened on: that video is tried
again, elsewhere if another node is free. A node is failing once `limit` videos in a row have ended in faults
there; a success makes it sound again. The build ends when more than a given share of the nodes that can work are
failing: then the cause is more likely the storage or the settings, which no other node is spared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SPECIFIC = re.compile(r"\S*[/\d]\S*")
"""Words of a fault that differ from video to video."""
MOST_NAMED = 5
"""Nodes that an error names."""


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    Attributes:
        node: Ray's id of the node.
        name: for people: address, host name, and the GPUs that the process uses.
    """

    node: str
    name: str


@dataclass
class NodeFaults:
    """The faults of a build so far.

    Attributes:
        limit: faults in a row after which a node is failing.
        share: of the nodes that can work; the build ends when more of them are failing.
    """

    limit: int
    share: float
    _in_a_row: Counter[str] = field(default_factory=Counter)
    _last: dict[str, tuple[Place, str]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _named: set[tuple[str, str]] = field(default_factory=set)

    def worked(self, node: str) -> None:
        """Note that a video was finished on a node."""
        del self._in_a_row[node]

    def failed(self, place: Place, fault: str) -> str | None:
        """Note that a video ended in a fault.

        Returns:
            A message, the first time that this place has this kind of fault: paths and numbers aside.
        """
        self._in_a_row[place.node] += 1
        self._counts[place.node] += 1
        self._last[place.node] = place, fault
        named = place.name, SPECIFIC.sub("", fault)
        if named in self._named:
            return None
        self._named.add(named)
        return f"Node {place.name} failed, its videos are tried again: {fault}"

    def failed_last(self) -> frozenset[str]:
        """Nodes whose last video ended in a fault."""
        return frozenset(node for node, count in self._in_a_row.items() if count)

    def failing(self, nodes: Iterable[str]) -> list[str]:
        """Those of `nodes` that are failing."""
        return [node for node in nodes if self._in_a_row[node] >= self.limit]

    def too_many(self, nodes: Iterable[str]) -> bool:
        """Whether more than the share of `nodes`, which can work, are failing."""
        there = list(nodes)
        return len(self.failing(there)) > self.share * len(there)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def summary(self) -> str:
        """The nodes with the most faults, each with its last one."""
        return "\n  ".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for node, count in self._counts.most_common(MOST_NAMED):
            place, fault = self._last[node]
            yield f"node {place.name}, {count} times: {fault}"
        if (more := len(self._counts) - MOST_NAMED) > 0:
            yield f"and {more} more nodes"
