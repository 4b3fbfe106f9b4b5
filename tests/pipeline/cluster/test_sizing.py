"""Every node kind is used as far as it has room, and none is promised more; or a message names the keys."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.sizing import (
    NodeResources,
    TaskShape,
    check_room,
    fitting,
    memory_bytes,
    size_pools,
    task_shape,
)
from pipeline.config import Run
from pipeline.errors import BuildError

GIB = 2**30
HEAD = NodeResources(cpus=0, gpus=0, memory=4 * GIB)
CPUS = NodeResources(cpus=64, memory=128 * GIB)
ONE_GPU = NodeResources(cpus=16, gpus=1, memory=64 * GIB)
EIGHT_GPUS = NodeResources(cpus=128, gpus=8, memory=900 * GIB)
SMALL = NodeResources(cpus=8, memory=2 * GIB)

kinds = st.one_of(
    st.sampled_from([HEAD, CPUS, ONE_GPU, EIGHT_GPUS, SMALL]),
    st.builds(
        NodeResources,
        cpus=st.integers(0, 256),
        gpus=st.integers(0, 8),
        memory=st.integers(0, 2**41),
    ),
)
clusters = st.lists(kinds, min_size=100, max_size=100)
runs = st.builds(
    Run,
    analysers=st.none() | st.integers(1, 5000),
    analyser_cpus=st.sampled_from([0.1, 0.3, 0.9, 1.0, 1.5, 4.0]),
    analyser_gpus=st.sampled_from([0.0, 0.05, 0.1, 0.3, 1 / 3, 0.5, 0.6, 1.0, 2.0]),
    analyser_memory_gb=st.sampled_from([0.5, 1.5, 3.0, 16.0]),
)


def packed(node: NodeResources, run: Run, count: int) -> bool:
    """Whether so many analysers fit on a node: placed one after another, as Ray does, a fraction on one GPU."""
    if count * memory_bytes(run) > node.memory or count * run.analyser_cpus > node.cpus + 1e-6:
        return False
    free = [1.0] * int(node.gpus)
    for _ in range(count):
        wanted = run.analyser_gpus
        if wanted >= 1:
            whole = [gpu for gpu, share in enumerate(free) if share == 1.0]
            if len(whole) < wanted:
                return False
            for gpu in whole[: int(wanted)]:
                free[gpu] = 0.0
        elif wanted:
            gpu = next((gpu for gpu, share in enumerate(free) if share >= wanted - 1e-4), None)
            if gpu is None:
                return False
            free[gpu] -= wanted
    return True


@settings(max_examples=100, deadline=None)
@given(clusters, runs, st.integers(1, 20_000))
def test_at_100_nodes_each_is_filled_and_none_overfilled(
    nodes: list[NodeResources], run: Run, files: int
) -> None:
    pools = size_pools(nodes, run, files)
    for node, count in zip(nodes, pools.by_node, strict=True):
        assert count == fitting(node, run)
        assert packed(node, run, count)
        assert not packed(node, run, count + 1)
    room = sum(pools.by_node)
    assert pools.at_first == max(1, min(room, files, run.analysers or files))
    assert pools.at_first <= pools.most <= files
    assert run.analysers is None or pools.most <= run.analysers


@settings(max_examples=50, deadline=None)
@given(clusters, runs, kinds)
def test_a_node_more_never_means_fewer_and_order_means_nothing(
    nodes: list[NodeResources], run: Run, another: NodeResources
) -> None:
    before = size_pools(nodes, run, 10**6)
    after = size_pools([another, *nodes], run, 10**6)
    assert after.by_node[1:] == before.by_node
    assert before.at_first <= after.at_first
    assert sorted(size_pools(nodes[::-1], run, 10**6).by_node) == sorted(before.by_node)


def test_one_hundred_nodes_with_one_gpu_each_hold_what_fits_beside_each_other() -> None:
    run = Run(device="cuda", analyser_gpus=0.1)
    assert size_pools([ONE_GPU] * 100, run, 10**6).at_first == 1000
    # A third of 100 GPUs would be 333 by the sum; 3 fit on each, and 0.1 of it stays free.
    assert size_pools([ONE_GPU] * 100, Run(device="cuda", analyser_gpus=0.3), 10**6).at_first == 300


def test_a_mixed_cluster_uses_every_kind_that_has_what_is_asked_for() -> None:
    nodes = [HEAD, CPUS, ONE_GPU, EIGHT_GPUS, SMALL]
    assert size_pools(nodes, Run(), 10**6).by_node == (0, 64, 16, 128, 1)
    assert size_pools(nodes, Run(device="cuda", analyser_gpus=0.1), 10**6).by_node == (0, 0, 10, 80, 0)
    assert size_pools(nodes, Run(device="cuda", analyser_gpus=2), 10**6).by_node == (0, 0, 0, 4, 0)


@pytest.mark.parametrize("cpus", [1, 2, 10, 64])
def test_one_analyser_a_cpu(cpus: int) -> None:
    assert fitting(NodeResources(cpus=cpus, memory=1000 * GIB), Run()) == cpus


def test_no_more_analysers_than_files_or_than_configured() -> None:
    assert size_pools([CPUS], Run(), 3).at_first == 3
    pools = size_pools([CPUS], Run(analysers=5), 100)
    assert (pools.at_first, pools.most) == (5, 5)
    assert size_pools([CPUS], Run(), 100).most == 100  # room on nodes that join


@given(st.lists(kinds, min_size=2, max_size=8), runs, st.integers(1, 40), st.data())
def test_a_file_is_left_for_nodes_that_have_not_failed(
    nodes: list[NodeResources], run: Run, files: int, data: st.DataObject
) -> None:
    named = [replace(node, node_id=str(number)) for number, node in enumerate(nodes)]
    faulty = data.draw(st.sets(st.sampled_from([node.node_id for node in named])))
    pools = size_pools(named, run, files, faulty)
    on_faulty = sum(fitting(node, run) for node in named if node.node_id in faulty)
    elsewhere = sum(pools.by_node) - on_faulty
    # However Ray fills the nodes that have failed, as many as there is work for come to the others.
    assert pools.at_first - on_faulty >= min(elsewhere, files, run.analysers or files)
    assert pools.at_first <= max(1, sum(pools.by_node))


def test_a_cluster_that_grows_on_demand_starts_with_one() -> None:
    check_room([HEAD], Run(analysers=8), joined=True)
    pools = size_pools([HEAD], Run(analysers=8), 100)
    assert (pools.at_first, pools.most) == (1, 8)


def test_gpus_where_there_are_none_are_an_error_that_names_the_keys() -> None:
    with pytest.raises(BuildError) as caught:
        check_room([CPUS], Run(device="cuda", analyser_gpus=0.1), joined=True)
    assert str(caught.value) == (
        "run.analyser_gpus=0.1 asks for GPUs, but the Ray cluster has none that Ray sees. Set it to 0 and "
        "run.device=cpu, or set run.analysers on a cluster that grows on demand."
    )
    with pytest.raises(BuildError, match=r"this machine has none that Ray sees\. Set .* run.device=cpu\.$"):
        check_room([CPUS], Run(device="cuda", analyser_gpus=0.1, analysers=8), joined=False)


def test_a_machine_or_a_cluster_without_room_is_named_as_such() -> None:
    with pytest.raises(
        BuildError, match=r"^This machine has no room for an analyser .*analyser_memory_gb=100"
    ):
        check_room([SMALL], Run(analyser_memory_gb=100), joined=False)
    with pytest.raises(BuildError, match=r"^No node of the Ray cluster has CPUs for work: .* Add nodes"):
        check_room([HEAD], Run(), joined=True)


def test_a_cluster_whose_sum_suffices_but_no_node_does_is_an_error() -> None:
    with pytest.raises(BuildError) as caught:
        check_room([SMALL] * 100, Run(analyser_memory_gb=3), joined=True)
    assert str(caught.value) == (
        "No node of the Ray cluster has room for an analyser (run.analyser_cpus=1, run.analyser_gpus=0, "
        "run.analyser_memory_gb=3). The largest node has 8 CPUs, 0 GPUs and 2.0 GiB of memory. Lower these, or "
        "set run.analysers on a cluster that grows on demand."
    )


@given(st.integers(1, 100))
def test_a_gpu_holds_as_many_equal_parts_as_it_is_cut_into(parts: int) -> None:
    share = math.floor(10_000 / parts) / 10_000
    node = NodeResources(cpus=1000, gpus=1, memory=2**50)
    assert fitting(node, Run(device="cuda", analyser_gpus=share)) >= parts


small_kinds = st.builds(
    NodeResources,
    cpus=st.sampled_from([0.0, 0.00001, 0.1, 1 / 3, 0.5, 0.9999, 1.0, 1.5, 2.0, 64.0]),
    memory=st.one_of(st.sampled_from([0, 1, GIB - 1, GIB, GIB + 1]), st.integers(0, 2**41)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(small_kinds | kinds, max_size=6), st.integers(1, 4 * GIB))
def test_a_task_fits_on_a_node_and_asks_for_as_much_of_what_it_needs_as_any_node_has(
    nodes: list[NodeResources], memory: int
) -> None:
    shape = task_shape(nodes, memory)
    able = [node for node in nodes if node.cpus >= 0.0001]
    assert (shape is None) == (not able)
    if shape is None:
        return
    assert any(node.cpus + 1e-9 >= shape.cpus and node.memory >= shape.memory for node in nodes)
    assert any(shape.slots(node) for node in nodes)
    assert 0 < shape.cpus <= 1
    # No node with CPUs has more of the memory, and none with as much has more of a CPU.
    assert shape.memory == min(memory, max(node.memory for node in able))
    equal = [node for node in able if min(node.memory, memory) == shape.memory]
    assert shape.cpus == pytest.approx(min(1, max(node.cpus for node in equal)), abs=1e-4)


@settings(max_examples=300, deadline=None)
@given(st.lists(small_kinds | kinds, min_size=1, max_size=6), st.integers(1, 4 * GIB))
def test_a_node_is_filled_with_tasks_and_not_overfilled(nodes: list[NodeResources], memory: int) -> None:
    if shape := task_shape(nodes, memory):
        for node in nodes:
            count = shape.slots(node)
            assert count * shape.cpus <= node.cpus + 1e-6
            assert count * shape.memory <= node.memory
            more = count + 1
            assert more * shape.cpus > node.cpus - 1e-3 or more * shape.memory > node.memory


def test_a_head_without_cpus_lends_no_task_its_memory() -> None:
    worker = NodeResources(cpus=4, memory=GIB // 2)
    assert task_shape([HEAD, worker], GIB) == TaskShape(1.0, GIB // 2)
    assert task_shape([HEAD], GIB) is None
    assert task_shape([NodeResources(cpus=0.5, memory=2 * GIB), worker], GIB) == TaskShape(0.5, GIB)
