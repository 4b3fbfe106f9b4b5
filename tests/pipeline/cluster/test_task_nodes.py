"""Where a task of packing goes after failures, when it has failed for good, and how many are under way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.node_faults import Place
from pipeline.cluster.sizing import NodeResources
from pipeline.cluster.task_nodes import (
    BAD,
    DEATHS,
    LOST,
    MOST,
    TRIES,
    WINDOW_BYTES,
    FailedOnNodes,
    Task,
    TaskNodes,
)
from pipeline.errors import BuildError, MachineFault

GIB = 2**30
AWAY = MachineFault("the mount is away")


def made(count: int, cpus: float = 4) -> list[NodeResources]:
    head = NodeResources("head", "head", cpus=0, memory=64 * GIB)
    return [head, *(NodeResources(f"n{at}", f"node {at}", cpus=cpus, memory=8 * GIB) for at in range(count))]


def fail(nodes: TaskNodes, task: Task, node: str, *, died: bool = False) -> None:
    """A task runs on a node, and fails."""
    task.begun += 1
    task.place = Place(node, f"node {node[1:]}")
    nodes.failed(task, AWAY, died=died)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_a_task_fails_for_good_only_on_three_different_nodes_or_on_all(count: int, first: int) -> None:
    nodes = TaskNodes(lambda: made(count), GIB)
    task = Task(0, "train/000000.tar")
    node = f"n{first % count}"
    tried = [node]
    for _ in range(min(TRIES, count) - 1):
        fail(nodes, task, node)
        nodes.check_tries(task, AWAY)
        node = nodes.choose(task, [])
        tried.append(node)
    fail(nodes, task, node)
    with pytest.raises(FailedOnNodes) as caught:
        nodes.check_tries(task, AWAY)
    assert len(set(tried)) == len(tried)
    assert caught.value.nodes == [f"node {node[1:]}" for node in tried]


def test_a_failure_on_the_same_node_again_is_no_failure_on_another() -> None:
    nodes = TaskNodes(lambda: made(3), GIB)
    task = Task(0, "a")
    for _ in range(MOST - 1):
        fail(nodes, task, "n1")
        nodes.check_tries(task, AWAY)
    fail(nodes, task, "n1")
    with pytest.raises(FailedOnNodes):  # it ends all the same
        nodes.check_tries(task, AWAY)


def test_a_process_that_dies_is_begun_three_times_also_on_the_only_node() -> None:
    nodes = TaskNodes(lambda: made(1), GIB)
    task = Task(0, "a")
    for _ in range(DEATHS - 1):
        fail(nodes, task, "n0", died=True)
        nodes.check_tries(task, AWAY)
        assert nodes.choose(task, []) == "n0"
    fail(nodes, task, "n0", died=True)
    with pytest.raises(FailedOnNodes, match=r"^a: the mount is away \(on node 0\)"):
        nodes.check_tries(task, AWAY)


def test_lost_nodes_do_not_count_as_nodes_that_have_failed() -> None:
    nodes = TaskNodes(lambda: made(2), GIB)
    task = Task(0, "a")
    for at in range(LOST):
        fail(nodes, task, f"n{at + 10}", died=True)
        nodes.check_tries(task, AWAY)
    assert not task.failed_on
    fail(nodes, task, "n99", died=True)
    with pytest.raises(FailedOnNodes, match="on nodes that were lost"):
        nodes.check_tries(task, AWAY)


def test_a_node_that_fails_all_tasks_is_avoided_until_one_works_there() -> None:
    nodes = TaskNodes(lambda: made(3), GIB)
    assert nodes.choose(Task(0, "a"), []) == ""
    for at in range(BAD):
        fail(nodes, Task(at, "a"), "n1")
    running: list[Task] = []
    for at in range(8):
        task = Task(at, "a")
        task.sent_to = nodes.choose(task, running)
        running.append(task)
    assert sorted(task.sent_to for task in running) == ["n0"] * 4 + ["n2"] * 4
    nodes.worked(Task(0, "a", place=Place("n1", "")))
    assert nodes.choose(Task(0, "a"), []) == ""


def test_where_all_nodes_fail_their_tasks_still_go_where_they_have_not_been() -> None:
    nodes = TaskNodes(lambda: made(2), GIB)
    task = Task(9, "a")
    for at in range(2):
        for number in range(BAD):
            fail(nodes, Task(number, "a"), f"n{at}")
    fail(nodes, task, "n0")
    assert nodes.choose(task, []) == "n1"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 8 * 2**20))
def test_the_window_is_two_tasks_a_cpu_and_no_more_than_its_bytes(count: int, size: int) -> None:
    nodes = TaskNodes(lambda: made(count), GIB)
    running: list[Task] = []
    while nodes.has_room(running):
        running.append(Task(len(running), "a", size))
    if size * 2 * 4 * count < WINDOW_BYTES:
        assert len(running) == 2 * 4 * count
    assert size * (len(running) - 1) < WINDOW_BYTES
    assert len(running) <= 2 * 4 * count


def test_tasks_that_wait_are_named_apart_from_those_that_run() -> None:
    nodes = TaskNodes(lambda: made(1, cpus=0.5), GIB)
    tasks = [Task(at, f"train/{at:06}.tar") for at in range(6)]
    tasks[0].place = Place("n0", "node 0")
    assert nodes.stalled(tasks, 1800) == (
        "no task has ended for 30 min. 1 running: train/000000.tar on node 0; 5 waiting: train/000001.tar, "
        "train/000002.tar, train/000003.tar and 2 more, for a node with 0.5 free CPUs and 1.0 GiB of memory. "
        "Check the nodes, and what else runs on them; the same command again continues with all finished videos"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(5, "Input/output error", "/out/x"),
            "a: /out/x: Input/output error (on node 0). The same command ",
        ),
        (
            MachineFault("a: its process was killed."),
            "a: its process was killed (on node 0). The same command ",
        ),
        (BuildError("gone. Run the same command again"), "a: gone. Run the same command again (on node 0)"),
    ],
)
def test_the_last_error_names_the_task_and_the_nodes_and_says_once_how_to_go_on(
    error: Exception, text: str
) -> None:
    nodes = TaskNodes(lambda: made(1), GIB)
    task = Task(0, "a", place=Place("n0", "node 0"))
    nodes.failed(task, error, died=False)
    with pytest.raises(FailedOnNodes) as caught:
        nodes.check_tries(task, error)
    assert str(caught.value).startswith(text)
    assert str(caught.value).count("same command again") == 1


def test_a_task_that_failed_on_the_only_node_waits_for_another_where_that_has_left() -> None:
    living = made(1)
    nodes = TaskNodes(lambda: living, GIB)
    task = Task(0, "a")
    living.pop()
    fail(nodes, task, "n0")
    nodes.check_tries(task, AWAY)
    assert nodes.choose(task, []) == ""
    living.append(NodeResources("n1", "node 1", cpus=2, memory=GIB))
    nodes.look()
    assert nodes.choose(task, []) == "n1"
