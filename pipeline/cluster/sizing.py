"""How many analysers a cluster holds, and what a task asks for: pure functions of what each node has.

There is one kind of process, an analyser, which takes a video from its file to its finished result. So whatever
fits anywhere is useful there, no process waits for one of another kind that finds no room, and no mix of nodes
and settings can deadlock. Ray places processes node by node, and a part of a GPU on one GPU, so both are counted
that way: sums over a cluster promise processes that fit nowhere.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import BuildError

UNITS = 10_000
"""Ray counts CPUs and GPUs in units of 1/10,000."""
MANY = 10**9


@dataclass(frozen=True)
class NodeResources:
    """What a node offers to processes.

    Attributes:
        node_id: Ray's.
        name: for people: address and host name.
        cpus: number of CPUs.
        gpus: number of GPUs.
        memory: in bytes, without what Ray keeps for its object store.
    """

    node_id: str = ""
    name: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    memory: int = 0


class Needs(Protocol):
    """The part of the configuration that says what an analyser needs (`config.Run`)."""

    @property
    def analysers(self) -> int | None:
        """Most analysers of the whole cluster; no limit with None."""

    @property
    def analyser_cpus(self) -> float:
        """CPUs of each."""

    @property
    def analyser_gpus(self) -> float:
        """GPUs of each: a fraction of one, or a whole number."""

    @property
    def analyser_memory_gb(self) -> float:
        """Memory of each, in GiB."""


@dataclass(frozen=True)
class Pools:
    """The analysers of a cluster.

    Attributes:
        by_node: how many each node has room for, in the order of the nodes.
        at_first: how many start at once: all that have room, and at least 1.
        most: how many there may be once nodes have joined.
    """

    by_node: tuple[int, ...]
    at_first: int
    most: int


def fitting(node: NodeResources, needs: Needs) -> int:
    """How many analysers a node has room for."""
    by_memory = int(node.memory // memory_bytes(needs))
    by_cpus = _units(node.cpus) // _units(needs.analyser_cpus)
    return min(by_memory, by_cpus, _by_gpus(node, needs.analyser_gpus))


def size_pools(nodes: list[NodeResources], needs: Needs, files: int, faulty: Collection[str] = ()) -> Pools:
    """How many analysers run on these nodes.

    Args:
        nodes: of the cluster.
        needs: of an analyser.
        files: how many there are to analyse: more processes would only start and end.
        faulty: ids of nodes whose last video ended in a fault. They get processes beyond the number of files:
            Ray places them anywhere, and the last files must not all wait on such a node.

    Returns:
        The pool; `at_first` is 1 even where no node has room, for clusters that grow on demand.
    """
    by_node = tuple(fitting(node, needs) for node in nodes)
    there = sum(room for node, room in zip(nodes, by_node, strict=True) if node.node_id in faulty)
    most = max(1, min(needs.analysers or files, files)) + there
    return Pools(by_node, at_first=max(1, min(sum(by_node), most)), most=most)


def check_room(nodes: list[NodeResources], needs: Needs, *, joined: bool) -> None:
    """Check that an analyser fits on a node.

    Args:
        nodes: of the cluster.
        needs: of an analyser.
        joined: whether the cluster existed before; one that is started for the build never grows.

    Raises:
        BuildError: none fits, and the cluster is not configured to grow.
    """
    if any(fitting(node, needs) for node in nodes) or (joined and needs.analysers is not None):
        return
    where = "the Ray cluster" if joined else "this machine"
    grow = ", or set run.analysers on a cluster that grows on demand" if joined else ""
    if needs.analyser_gpus and not any(node.gpus for node in nodes):
        raise BuildError(
            f"run.analyser_gpus={needs.analyser_gpus:g} asks for GPUs, but {where} has none that Ray sees. Set it "
            f"to 0 and run.device=cpu{grow}."
        )
    if joined and not any(node.cpus for node in nodes):
        raise BuildError(
            "No node of the Ray cluster has CPUs for work: a head that is started with --num-cpus=0 has none. Add "
            f"nodes (ray start --address=HEAD:PORT){grow}."
        )
    room = "No node of the Ray cluster has room" if joined else "This machine has no room"
    raise BuildError(
        f"{room} for an analyser (run.analyser_cpus={needs.analyser_cpus:g}, run.analyser_gpus="
        f"{needs.analyser_gpus:g}, run.analyser_memory_gb={needs.analyser_memory_gb:g}). {_largest(nodes)}. "
        f"Lower these{grow}."
    )


def memory_bytes(needs: Needs) -> int:
    """The memory of an analyser in bytes."""
    return int(needs.analyser_memory_gb * 2**30)


@dataclass(frozen=True)
class TaskShape:
    """What a task that writes or checks a shard asks Ray for.

    Attributes:
        cpus: number of CPUs, at most 1.
        memory: in bytes; 0 where the only nodes with CPUs say that they have none.
    """

    cpus: float
    memory: int

    def slots(self, node: NodeResources) -> int:
        """How many such tasks a node has room for at once."""
        by_cpus = _floor_units(node.cpus) // _units(self.cpus)
        return min(by_cpus, node.memory // self.memory) if self.memory else by_cpus


def task_shape(nodes: list[NodeResources], memory: int) -> TaskShape | None:
    """What a task asks for, so that it fits on at least one node.

    One CPU and `memory`, where a node has both. Else memory counts for more than a whole CPU: a task on half a CPU
    is slow, one without its memory is killed. Where no node has the memory, a task asks for all that the largest
    has, so that it is alone there.

    Args:
        nodes: of the cluster; a head without CPUs runs no task.
        memory: bytes that a task takes.

    Returns:
        The shape; None when no node has CPUs.
    """
    able = [node for node in nodes if _floor_units(node.cpus)]
    if not able:
        return None
    best = max(able, key=lambda node: (min(node.memory, memory), min(node.cpus, 1.0)))
    return TaskShape(min(UNITS, _floor_units(best.cpus)) / UNITS, min(best.memory, memory))


def _by_gpus(node: NodeResources, each: float) -> int:
    """How many processes the GPUs of a node hold; a fraction is a part of one GPU."""
    if not each:
        return MANY
    if each >= 1:
        return int(node.gpus // each)
    return int(node.gpus) * (UNITS // _units(each))


def _units(amount: float) -> int:
    return max(1, round(amount * UNITS))


def _floor_units(amount: float) -> int:
    """What a node has, in Ray's units: a fraction of one is nothing."""
    return int(amount * UNITS + 1e-6)


def _largest(nodes: list[NodeResources]) -> str:
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus, node.memory), default=NodeResources())
    return (
        f"The largest node has {largest.cpus:g} CPUs, {largest.gpus:g} GPUs and "
        f"{largest.memory / 2**30:.1f} GiB of memory"
    )
