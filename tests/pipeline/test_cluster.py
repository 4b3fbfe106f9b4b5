"""The processes of a build fit into the cluster, or a message names the keys before work starts."""

from __future__ import annotations

import socket

import pytest

from pipeline.cluster import divide as divided
from pipeline.cluster import session
from pipeline.config import Run
from pipeline.errors import BuildError

GIB = 2**30


def divide(run: Run, *, joined: bool = True, videos: int = 100, **resources: float) -> tuple[int, int]:
    return divided(run, videos, {"CPU": 4, "memory": 64 * GIB, **resources}, joined=joined)


def test_as_many_analysers_as_fit_beside_the_scorers() -> None:
    assert divide(Run(analyser_cpus=0.9, scorers=1, scorer_cpus=0.1), CPU=2) == (2, 2)
    assert divide(Run(analyser_cpus=1, scorers=2, scorer_cpus=1), CPU=8) == (6, 6)
    assert divide(Run(scorers=1), CPU=8, memory=4 * GIB) == (3, 3)
    assert divide(Run(), CPU=8, memory=6 * GIB) == (4, 4)


@pytest.mark.parametrize("cpus", [1, 2, 10, 64])
def test_one_analyser_a_cpu_where_nothing_else_needs_one(cpus: int) -> None:
    assert divide(Run(), CPU=cpus, memory=1000 * GIB) == (cpus, cpus)


def test_no_more_analysers_than_videos_or_than_configured() -> None:
    assert divide(Run(), CPU=64, videos=3) == (3, 3)
    assert divide(Run(analysers=5), CPU=64) == (5, 5)


def test_a_share_of_a_gpu_limits_the_analysers() -> None:
    run = Run(device="cuda", analyser_gpus=0.1, scorers=1, scorer_gpus=0.5)
    assert divide(run, CPU=64, GPU=1) == (5, 5)


def test_gpus_on_a_cluster_without_any_are_an_error_that_names_the_keys() -> None:
    with pytest.raises(BuildError) as caught:
        divide(Run(device="cuda", analyser_gpus=0.1, scorers=1, scorer_gpus=0.5))
    assert str(caught.value) == (
        "run.analyser_gpus=0.1 and run.scorer_gpus=0.5 ask for GPUs, but the Ray cluster has none that Ray sees. "
        "Set both to 0 and run.device=cpu, or set run.analysers on a cluster that grows on demand."
    )


def test_a_cluster_that_was_joined_may_grow_to_the_configured_analysers() -> None:
    run = Run(device="cuda", analysers=8, scorers=1, scorer_gpus=0.5)
    assert divide(run, joined=True) == (1, 8)


def test_a_cluster_that_is_started_here_does_not_grow() -> None:
    run = Run(device="cuda", analysers=8, scorers=1, scorer_gpus=0.5)
    with pytest.raises(
        BuildError, match=r"this machine has none that Ray sees\. Set both to 0 and run.device=cpu\.$"
    ):
        divide(run, joined=False)


def test_scorers_are_named_only_where_there_are_some() -> None:
    with pytest.raises(BuildError, match=r"run\.analyser_gpus=0, 1\.5 GiB\)\. Lower these"):
        divide(Run(), memory=GIB)
    with pytest.raises(BuildError, match=r"run\.analyser_gpus=0, 1 GiB\) beside 1 scorers"):
        divide(Run(scorers=1), memory=GIB)


def test_too_few_cpus_are_an_error_that_names_the_keys() -> None:
    with pytest.raises(BuildError, match=r"this machine has 1 CPUs.*run\.analyser_cpus=2.*Lower these\.$"):
        divide(Run(analyser_cpus=2), joined=False, CPU=1)


def test_an_address_where_nothing_listens_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(BuildError) as caught, session():
        pass
    assert str(caught.value) == (
        f"RAY_ADDRESS: no Ray cluster answers at {address} (Connection refused). Start it, correct the address, "
        "or unset RAY_ADDRESS to run on this machine."
    )
