"""A cluster that cannot be reached is an error at once; one without CPUs writes no shards."""

from __future__ import annotations

import io
import socket
import sys
import types
from pathlib import Path

import pytest
from rich.console import Console
from staged_videos import configured, make_source

from pipeline.cluster import session as cluster
from pipeline.cluster.on_ray import OnRay
from pipeline.cluster.session import session, workers
from pipeline.cluster.sizing import NodeResources
from pipeline.cluster.workers import Processes, Workers
from pipeline.errors import BuildError
from pipeline.progress import Reporter


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


@pytest.mark.parametrize(
    ("cpus", "overrides", "expected"),
    [
        (4.0, (), OnRay),
        (0.5, (), OnRay),
        (0.0, (), Processes),
        (0.0, ("run.analysers=4",), OnRay),  # it grows on demand
    ],
)
def test_shards_are_written_on_the_cluster_unless_none_of_its_nodes_has_cpus(
    cpus: float,
    overrides: tuple[str, ...],
    expected: type[Workers],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(cluster, "nodes", lambda: [NodeResources("a", "a", cpus=cpus, memory=2**33)])
    config = configured(
        make_source(tmp_path / "clips", {"a.mp4": 1}), tmp_path / "out", "shards.max_samples=2", *overrides
    )
    written = io.StringIO()
    with workers(config, 8, Reporter(Console(file=written))) as found:
        assert type(found) is expected
    assert ("No node of the Ray cluster has CPUs" in written.getvalue()) == (expected is Processes)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("head", r"RAY_ADDRESS=head: expected HOST:PORT of the head, such as head:6379"),
        ("ray://head:10001", r"is no address to join. Give HOST:PORT .* submit a job"),
        ("http://head:8265", r"is no address to join. Give HOST:PORT .* submit a job"),
    ],
)
def test_an_address_that_is_none_of_a_head_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(BuildError, match=message), session():
        pass
