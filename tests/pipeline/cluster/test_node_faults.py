"""A bad node is named once and costs its own work; a common cause ends the build."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster.node_faults import NodeFaults, Place

NODES = [f"node{number}" for number in range(5)]


def place(node: str, gpu: str = "") -> Place:
    return Place(node, f"10.0.0.1 ({node}){gpu}")


def test_a_fault_is_named_once_for_each_place_and_kind() -> None:
    faults = NodeFaults(limit=3, share=0.5)
    message = faults.failed(place("a"), "/clips/1.mp4 cannot be read (Stale file handle)")
    assert message == (
        "Node 10.0.0.1 (a) failed, its videos are tried again: /clips/1.mp4 cannot be read (Stale file handle)"
    )
    assert faults.failed(place("a"), "/clips/2.mp4 cannot be read (Stale file handle)") is None
    assert faults.failed(place("b"), "/clips/1.mp4 cannot be read (Stale file handle)") is not None
    assert faults.failed(place("a", ", GPU 3"), "A network failed on the GPU") is not None


def test_one_bad_node_of_many_never_ends_the_build() -> None:
    faults = NodeFaults(limit=3, share=0.5)
    for _ in range(1000):
        faults.failed(place("node0"), "lost")
    assert faults.failing(NODES) == ["node0"]
    assert not faults.too_many(NODES)
    assert not faults.too_many(["node0", "node1"])  # half of them is not more than half


def test_the_only_node_ends_the_build_after_as_many_faults_as_configured() -> None:
    faults = NodeFaults(limit=3, share=0.5)
    for left in (2, 1, 0):
        faults.failed(place("a"), "the disk is full")
        assert faults.too_many(["a"]) == (left == 0)


def test_a_node_that_works_again_is_sound() -> None:
    faults = NodeFaults(limit=2, share=0.0)
    faults.failed(place("a"), "lost")
    faults.worked("a")
    faults.failed(place("a"), "lost")
    assert not faults.too_many(["a"])
    faults.failed(place("a"), "lost")
    assert faults.too_many(["a"])


def test_a_lost_node_no_longer_counts() -> None:
    faults = NodeFaults(limit=1, share=0.5)
    faults.failed(place("a"), "lost")
    assert faults.too_many(["a"])
    assert not faults.too_many(["b", "c"])


@given(
    st.lists(st.tuples(st.sampled_from(NODES), st.booleans())),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_a_node_is_failing_when_its_last_results_are_all_faults(
    events: list[tuple[str, bool]], limit: int, share: float
) -> None:
    faults = NodeFaults(limit, share)
    for node, ok in events:
        if ok:
            faults.worked(node)
        else:
            faults.failed(place(node), "lost")
    last = {node: [ok for name, ok in events if name == node][-limit:] for node in NODES}
    expected = [node for node in NODES if len(last[node]) == limit and not any(last[node])]
    assert faults.failing(NODES) == expected
    assert faults.too_many(NODES) == (len(expected) > share * len(NODES))
    assert bool(faults) == (not all(ok for _, ok in events))


def test_the_summary_names_the_worst_nodes_and_counts_the_others() -> None:
    faults = NodeFaults(limit=3, share=0.5)
    for number in range(7):
        for _ in range(7 - number):
            faults.failed(place(f"n{number}"), f"fault {number}")
    lines = faults.summary().splitlines()
    assert lines[0] == "node 10.0.0.1 (n0), 7 times: fault 0"
    assert len(lines) == 6
    assert lines[-1].strip() == "and 2 more nodes"
