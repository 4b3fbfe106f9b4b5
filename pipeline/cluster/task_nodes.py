"""Which node takes a task of packing or verifying, how many are under way, and when one has failed for good.

All of it follows from the nodes that live and from what has happened to a task, without Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.node_faults import NodeFaults, Place
from pipeline.cluster.sizing import NodeResources, TaskShape, task_shape
from pipeline.cluster.workers import PER_CPU
from pipeline.errors import BuildError

TRIES = 3
"""On so many nodes a task is tried whose error may be its machine's, where the cluster has as many."""
TRIES_OF_DAMAGE = 2
"""The same for a staged file that cannot be read back: the disk or the network of its node may be at fault."""
DEATHS = 3
"""How often a task is begun whose process dies, or finds no memory, also where there is only one node."""
LOST = 10
"""How often a task is begun again whose node is lost: that says nothing of the task."""
MOST = 30
"""How often a task is begun, whatever happens."""
BAD = 3
"""A node where so many tasks in a row have failed gets no more of them, while another has room."""
RESOURCES_S = 10.0
"""How often the nodes are looked at, in seconds: a cluster may grow."""
WINDOW_BYTES = 2**28
"""Items of tasks under way, at most: they are in the object store of the driver's node, where 1 GB is enough for a
build. The item of a shard is about a megabyte, so this limits clusters of hundreds of CPUs."""
NAMED = 3
"""Tasks that a message names."""


class FailedOnNodes(BuildError):  # noqa: N818 - says what happened
    """A task has failed wherever it was tried.

    Attributes:
        error: the last one.
        nodes: names of those that have tried.
    """

    def __init__(self, text: str, error: Exception, nodes: list[str]) -> None:
        super().__init__(text)
        self.error = error
        self.nodes = nodes


@dataclass(eq=False)
class Task:
    """A task under way.

    Attributes:
        number: of its item.
        label: names it in messages.
        size: of its item in bytes, as it travels.
        payload: Ray's reference to the item.
        place: where it runs; None while it waits.
        sent_to: Ray's id of the node that it was sent to; empty when Ray chooses.
        failed_on: names of the nodes where it has failed, by Ray's id.
        deaths: of its processes, on nodes that still live.
        lost: how often its node was lost, or it was lost before it had begun.
        begun: how often it was sent.
    """

    number: int
    label: str
    size: int = 0
    payload: Any = None
    place: Place | None = None
    sent_to: str = ""
    failed_on: dict[str, str] = field(default_factory=dict)
    deaths: int = 0
    lost: int = 0
    begun: int = 0


class TaskNodes:
    """The nodes as they are now, what a task asks for there, and which of them fail.

    Args:
        nodes: gives those that live now.
        memory: bytes that a task takes.
    """

    def __init__(self, nodes: Callable[[], list[NodeResources]], memory: int) -> None:
        self._get, self._memory = nodes, memory
        self.faults = NodeFaults(BAD, 1.0)
        self.shape = TaskShape(1.0, memory)
        self._names: dict[str, str] = {}
        self.look()

    def look(self) -> None:
        """Look at the nodes. Where none has CPUs now, tasks wait for one that has."""
        self._looked = time.monotonic()
        self.living = {node.node_id: node for node in self._get()}
        self._names |= {node.node_id: node.name for node in self.living.values()}
        self.shape = task_shape(list(self.living.values()), self._memory) or self.shape

    def slots(self) -> dict[str, int]:
        """How many tasks each node that has room runs at once, by Ray's id."""
        found = {node.node_id: self.shape.slots(node) for node in self.living.values()}
        return {node: slots for node, slots in found.items() if slots}

    def place(self, task: Task) -> Place:
        """Where a task runs, or was sent; its node is empty where that is not known."""
        return task.place or Place(task.sent_to, self._names.get(task.sent_to, "not known"))

    def has_room(self, running: Iterable[Task]) -> bool:
        """Whether another task may be sent: one waits beside each that runs."""
        if time.monotonic() - self._looked >= RESOURCES_S:
            self.look()
        sizes = [task.size for task in running]
        return len(sizes) < PER_CPU * max(1, sum(self.slots().values())) and sum(sizes) < WINDOW_BYTES

    def worked(self, task: Task) -> None:
        """Note that a task has ended well."""
        self.faults.worked(self.place(task).node)

    def failed(self, task: Task, error: Exception, *, died: bool) -> bool:
        """Note a failure of a task.

        Args:
            task: as it was.
            error: that it has raised, or that says what ended it.
            died: whether it was ended, and did not raise.

        Returns:
            Whether the node has this kind of fault for the first time.
        """
        self.look()
        place = self.place(task)
        if died and place.node not in self.living:
            task.lost += 1
        else:
            task.deaths += died
            task.failed_on[place.node] = place.name
        return self.faults.failed(place, fault_of(error)) is not None

    def choose(self, task: Task, running: Iterable[Task]) -> str:
        """The node for a task; empty where Ray may take any: it spreads tasks over all nodes.

        A node that has failed the task, or that fails all, is avoided. Of the others the one with the least to do
        takes it.
        """
        slots = self.slots()
        failing = set(self.faults.failing(slots))
        if not task.failed_on and not failing:
            return ""
        able = [node for node in slots if node not in task.failed_on] or list(slots)
        able = [node for node in able if node not in failing] or able
        load = Counter(self.place(each).node for each in running)
        return min(able, key=lambda node: (load[node] / slots[node], node), default="")

    def check_tries(self, task: Task, error: Exception, tries: int = TRIES) -> None:
        """Check that a task that has failed may be tried again.

        Args:
            task: with its failures.
            error: the last one.
            tries: on so many nodes at most.

        Raises:
            FailedOnNodes: it may not: it has failed on so many nodes, or on all that have room.
        """
        able = self.slots().keys()  # none while a cluster waits for nodes
        everywhere = len(task.failed_on) >= tries or (bool(able) and able <= task.failed_on.keys())
        for_good = bool(task.failed_on) and everywhere and (not task.deaths or task.deaths >= DEATHS)
        if for_good or task.lost > LOST or task.begun >= MOST:
            nodes = list(task.failed_on.values())
            where = f"on {' and '.join(nodes)}" if nodes else "on nodes that were lost"
            raise FailedOnNodes(_failed(task, error, where), error, nodes) from error

    def stalled(self, running: Iterable[Task], seconds: float) -> str:
        """The message where no task has ended for so long."""
        tasks = list(running)
        begun = [f"{task.label} on {task.place.name}" for task in tasks if task.place]
        waiting = [task.label for task in tasks if not task.place]
        return (
            f"no task has ended for {seconds / 60:.3g} min. {_listed('running', begun)}; "
            f"{_listed('waiting', waiting)}, for a node with {self.shape.cpus:g} free CPUs and "
            f"{self.shape.memory / 2**30:.1f} GiB of memory. Check the nodes, and what else runs on them; the "
            "same command again continues with all finished videos"
        )


def fault_of(error: Exception) -> str:
    """What an error says, for people: a system's error without its number."""
    if isinstance(error, OSError) and type(error).__str__ is OSError.__str__ and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _failed(task: Task, error: Exception, where: str) -> str:
    text = fault_of(error).rstrip(".")
    text = text if text.startswith(task.label) else f"{task.label}: {text}"
    kept = (
        "" if "same command again" in text else ". The same command again continues with all finished videos"
    )
    return f"{text} ({where}){kept}"


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}{': ' if names else ''}{', '.join(names[:NAMED])}{more}"
