"""Runs the tasks of packing and verifying on a Ray cluster, and answers for every way in which one can fail.

Ray tries nothing again by itself here: it would do so on any node, in silence, and without limit when the memory
runs out. Each failure is reported with its node, and the task goes to a node that has not tried it. A task is a
generator, which first says where it runs: so a task whose process dies has a node, and one that waits is known.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.cluster.node_faults import Place
from pipeline.cluster.ray_task import Failed, execute
from pipeline.cluster.sizing import NodeResources
from pipeline.cluster.task_nodes import TRIES, TRIES_OF_DAMAGE, Task, TaskNodes, fault_of
from pipeline.cluster.workers import HEARTBEAT_TIMEOUT_S, LOOK_S, label_of
from pipeline.errors import BuildError, MachineFault

Item = TypeVar("Item")
Result = TypeVar("Result")

TASK_MEMORY = 2**30
"""Bytes that a process takes which writes or checks a shard: webdataset brings torch along, half a gigabyte."""
STALLED_S = 1800.0
"""Seconds without any result after which the work ends: a task that is silent has ended long before."""
MEMORY_USED = re.compile(r"Memory usage (\d+)B exceeded .* of (\d+)B limit")
MEMORY_NODE = re.compile(r"ID: ([0-9a-f]{56})")
"""In what Ray says when it ends a process because the memory of its node runs out."""


class OnRay:
    """Runs tasks on the Ray cluster that this process has joined, as many as the cluster has room for.

    Args:
        nodes: gives those that live now.
        report: called with every fault: where, what, and whether it is the first of its kind there.
        timeout_s: seconds without access to a file (`storage.heartbeat`) after which a task is given up.
        memory: bytes that a task takes.
        stalled_s: seconds without any result after which the work ends.
    """

    alone = False

    def __init__(
        self,
        nodes: Callable[[], list[NodeResources]],
        report: Callable[[Place, str, bool], None] = lambda *_: None,
        *,
        timeout_s: float = HEARTBEAT_TIMEOUT_S,
        memory: int = TASK_MEMORY,
        stalled_s: float = STALLED_S,
    ) -> None:
        self._get_nodes = nodes
        self._report = report
        self._timeout_s = timeout_s
        self._memory = memory
        self._stalled_s = stalled_s

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Result]]:
        """As `Workers.run`.

        Raises:
            FailedOnNodes: a task has failed on several nodes, or on all.
            BuildError: nothing came back for too long.
        """
        import ray
        from ray import cloudpickle

        nodes = TaskNodes(self._get_nodes, self._memory)
        send = _Sender(function, nodes, self._timeout_s)
        following = enumerate(items)
        running = send.running
        last = time.monotonic()
        try:
            while True:
                while nodes.has_room(running.values()) and (item := next(following, None)):
                    size = len(cloudpickle.dumps(item[1]))
                    send(Task(item[0], label_of(item[1], item[0]), size, ray.put(item[1])))
                if not running:
                    return
                check()
                done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_S)
                for stream in done:
                    task = running[stream]
                    found = _next(stream)
                    if task.place is None and isinstance(found, Place):
                        task.place = found
                        continue
                    del running[stream]
                    if isinstance(found, Failed | ray.exceptions.RayError):
                        self._note(task, found, nodes)
                        send(task)
                        continue
                    nodes.worked(task)
                    yield task.number, found
                    last = time.monotonic()  # what the caller does with a result is not the cluster's time
                if time.monotonic() - last > self._stalled_s:
                    raise BuildError(nodes.stalled(running.values(), self._stalled_s))
        finally:
            for stream in running:
                with suppress(Exception):
                    ray.cancel(stream, force=True)

    def _note(self, task: Task, found: Failed | Exception, nodes: TaskNodes) -> None:
        """Note a failure of a task, and report it.

        Raises:
            FailedOnNodes: it is the last.
            Exception: the task has raised what no other node would mend.
        """
        from pipeline.staging import DamagedStagedFile

        died = not isinstance(found, Failed)
        error = found.error if isinstance(found, Failed) else _of_machine(task, found, nodes.shape.memory)
        if not isinstance(error, OSError | BuildError | MachineFault):
            raise error
        first = nodes.failed(task, error, died=died)
        self._report(nodes.place(task), fault_of(error), first)
        nodes.check_tries(task, error, TRIES_OF_DAMAGE if isinstance(error, DamagedStagedFile) else TRIES)


class _Sender:
    """Begins tasks, and begins them again.

    Attributes:
        running: what each task sends, with the task.
    """

    def __init__(self, function: Callable[[Any], Any], nodes: TaskNodes, timeout_s: float) -> None:
        import ray

        self._task: Any = ray.remote(execute)
        self._function = ray.put(function)
        self._nodes, self._timeout_s = nodes, timeout_s
        self.running: dict[Any, Task] = {}

    def __call__(self, task: Task) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task.place = None
        task.sent_to = node = self._nodes.choose(task, self.running.values())
        task.begun += 1
        shape = self._nodes.shape
        options = self._task.options(
            num_cpus=shape.cpus,
            memory=shape.memory or None,
            num_returns="streaming",
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD",
        )
        self.running[options.remote(self._function, task.payload, task.label, self._timeout_s)] = task


def _next(stream: Any) -> Any:
    """What a task has sent, or what Ray says of its end."""
    import ray

    try:
        return ray.get(next(stream))
    except StopIteration:
        return ray.exceptions.WorkerCrashedError()
    except ray.exceptions.RayError as error:
        return error


def _of_machine(task: Task, error: Exception, memory: int) -> Exception:
    """What ended a task, for people. What a task raises is sent as its result, so this is of its node."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError):
        used = MEMORY_USED.search(str(error))
        if task.place is None and (node := MEMORY_NODE.search(str(error))):
            task.sent_to = node[1]  # it had not said where it is
        amount = f" ({_gib(used[1])} of {_gib(used[2])} in use)" if used else ""
        return MachineFault(
            f"{task.label}: the memory of its node ran out{amount}. A task asks "
            f"for {_gib(memory)}. Give the node more memory, or fewer other processes"
        )
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return MachineFault(f"{task.label}: its process was killed. The node may be short of memory")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray puts the cause behind stack traces where a node lacks a package.
    line = -1 if isinstance(error, ray.exceptions.RayTaskError) else 0
    return MachineFault(f"{task.label}: {lines[line] if lines else type(error).__name__}")


def _gib(amount: int | str) -> str:
    return f"{int(amount) / 2**30:.1f} GiB"
