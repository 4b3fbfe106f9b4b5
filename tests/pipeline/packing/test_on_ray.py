"""Packing and verifying on a cluster of several nodes, one of which dies."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from staged_videos import MODELS_USED, accepted, configured, make_source

from pipeline.cluster import session as cluster
from pipeline.cluster.node_faults import Place
from pipeline.cluster.on_ray import OnRay
from pipeline.cluster.place import this_place
from pipeline.cluster.task_nodes import BAD, DEATHS, TRIES_OF_DAMAGE, FailedOnNodes
from pipeline.cluster.workers import InProcess, Workers
from pipeline.errors import BuildError
from pipeline.pack import pack
from pipeline.packing.shard import FOLDER
from pipeline.plan import plan_build
from pipeline.progress import Reporter
from pipeline.staging import DamagedStagedFile
from shards.verify import verify

pytestmark = [pytest.mark.slow]
GIB = 2**30
VIDEOS = 40
SETTINGS = ("shards.max_samples=2", "split.test_fraction=0.2")


def add_node(made: Any, memory: int = 2 * GIB) -> Any:
    return made.add_node(num_cpus=1, memory=memory, object_store_memory=2**27)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Any]]:
    """A cluster of a head that runs no tasks, with most of the memory, and three nodes."""
    # Ray reads it when it is imported; its own half a minute is too short for a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        pytest.skip("this process has joined another cluster")
    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "memory": 64 * GIB,
            "include_dashboard": False,
            "object_store_memory": 2**27,
        },
    )
    try:
        added = [add_node(made) for _ in range(3)]
        here = os.fspath(Path(__file__).parent)
        ray.init(
            address=made.address,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), here])}},
        )
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield [made, *added]
    finally:
        ray.shutdown()
        made.shutdown()


class Faults:
    """What was reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool]] = []

    def __call__(self, place: Place, fault: str, first: bool) -> None:
        self.seen.append((place.node, fault, first))


def packed(source: Path, output: Path, workers: Workers) -> None:
    config = configured(source, output, *SETTINGS)
    planned = plan_build(config, MODELS_USED, replace=True)
    for number, video in enumerate(planned.manifest.videos):
        if video in planned.todo:
            planned.staging.write(video, accepted(video, (number % 16,)))
    pack(config, MODELS_USED, planned, Reporter(Console(file=io.StringIO())), workers=workers)


def files(root: Path) -> dict[str, bytes]:
    paths = [*root.glob("*.json"), *root.glob("*.parquet"), *root.glob("*/*.tar")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


@pytest.mark.timeout(900)
def test_a_node_that_dies_while_shards_are_written_changes_no_byte(nodes: list[Any], tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {f"{number:02}.mp4": 10 for number in range(VIDEOS)})
    packed(source, tmp_path / "plain", InProcess())
    output = tmp_path / "mfhq"
    killed: list[int] = []
    ended = threading.Event()

    def kill_one() -> None:
        while not ended.is_set() and not list(output.glob(f".staging/*/{FOLDER}/*.parquet")):
            time.sleep(0.02)
        made, first, *_ = nodes
        made.remove_node(first, allow_graceful=False)
        killed.append(len(list(output.glob(f".staging/*/{FOLDER}/*.parquet"))))

    killer = threading.Thread(target=kill_one)
    killer.start()
    workers = OnRay(cluster.nodes)
    try:
        packed(source, output, workers)
    finally:
        ended.set()
        killer.join()
        nodes[1] = add_node(nodes[0])
    whole = files(tmp_path / "plain")
    shards = sum(name.endswith(".tar") for name in whole)
    assert shards >= 20
    assert 0 < killed[0] < shards
    assert files(output) == whole
    assert verify(output, run=workers.run) == []


def where_it_ran(folder: Path, item: int) -> list[str]:
    return sorted(path.name.split("-")[1] for path in folder.glob(f"{item}-*"))


def note(folder: Path, item: int) -> None:
    node = this_place().node
    count = len(list(folder.glob(f"{item}-{node}-*")))
    (folder / f"{item}-{node}-{count}").touch()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_what_a_task_raises_reaches_the_driver_with_the_nodes_after_three_different_ones_have_tried(
    tmp_path: Path,
) -> None:
    def away(item: int) -> int:
        note(tmp_path, item)
        if item == 3:
            raise BuildError("the mount is away")
        return item

    faults = Faults()
    with pytest.raises(
        FailedOnNodes, match=r"^task 4: the mount is away \(on .* and .* and .*\)\. The same"
    ) as caught:
        list(OnRay(cluster.nodes, faults).run(away, range(5)))
    names = {node.node_id: node.name for node in cluster.nodes() if node.cpus}
    tried = where_it_ran(tmp_path, 3)
    assert tried == sorted(names)
    assert sorted(caught.value.nodes) == sorted(names.values())
    assert sorted(faults.seen) == [(node, "the mount is away", True) for node in tried]
    assert isinstance(caught.value.error, BuildError)
    assert sorted(OnRay(cluster.nodes).run(abs, range(5))) == [(number, number) for number in range(5)]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_a_fault_is_written_with_its_node_and_counted_in_the_state_of_the_build(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clips", {f"{number:02}.mp4": 10 for number in range(8)})
    bad = next(node for node in cluster.nodes() if node.cpus)

    def on_a_bad_node(item: int) -> int:
        if this_place().node == bad.node_id:
            raise OSError(5, "Input/output error", f"/mnt/{item}")
        return item

    written = io.StringIO()
    reporter = Reporter(Console(file=written, width=1000))
    with cluster.workers(configured(source, tmp_path / "out", *SETTINGS), 8, reporter) as workers:
        assert isinstance(workers, OnRay)
        assert len(list(workers.run(on_a_bad_node, range(20)))) == 20
    message = f"Node {bad.name} failed, its tasks are tried again: /mnt/"
    assert written.getvalue().count(message) == 1
    (state,) = (node for node in reporter.monitor.state().nodes if node.name == bad.name)
    assert state.faults >= 1
    assert "Input/output error" in state.last_fault


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_an_error_of_the_data_is_raised_at_once_and_as_it_is(tmp_path: Path) -> None:
    def wrong(item: int) -> int:
        note(tmp_path, item)
        raise ValueError("the data are wrong")

    with pytest.raises(ValueError, match=r"^the data are wrong$"):
        list(OnRay(cluster.nodes).run(wrong, range(1)))
    assert len(where_it_ran(tmp_path, 0)) == 1


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_a_node_that_fails_its_tasks_is_avoided_and_its_fault_is_reported_once(tmp_path: Path) -> None:
    bad = next(node.node_id for node in cluster.nodes() if node.cpus)

    def on_a_bad_node(item: int) -> int:
        note(tmp_path, item)
        if this_place().node == bad:
            raise OSError(5, "Input/output error", f"/mnt/{item}")
        time.sleep(0.05)
        return item

    faults = Faults()
    found = sorted(OnRay(cluster.nodes, faults).run(on_a_bad_node, range(40)))
    assert found == [(number, number) for number in range(40)]
    assert {node for node, *_ in faults.seen} == {bad}
    assert sum(first for *_, first in faults.seen) == 1
    # Three in a row show what it is; a few were on their way to it by then.
    assert BAD <= len(faults.seen) <= BAD + 8


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_a_process_that_dies_again_and_again_ends_the_work_with_the_task_and_its_nodes(
    tmp_path: Path,
) -> None:
    def dies(item: int) -> int:
        note(tmp_path, item)
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    faults = Faults()
    with pytest.raises(FailedOnNodes, match=r"^task 3: its process was killed.* \(on "):
        list(OnRay(cluster.nodes, faults).run(dies, range(4)))
    assert len(set(where_it_ran(tmp_path, 2))) == len(faults.seen) == DEATHS


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_a_task_that_hangs_on_one_node_is_tried_elsewhere_and_its_process_ends(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = tmp_path / "first"

    def hangs_once(item: int) -> int:
        if item == 1:
            note(tmp_path, item)
            try:
                first.touch(exist_ok=False)
            except FileExistsError:
                return item
            (tmp_path / "pid").write_text(str(os.getpid()))
            pipe.read_bytes()  # there is no writer
        return item

    faults = Faults()
    found = sorted(OnRay(cluster.nodes, faults, timeout_s=2).run(hangs_once, range(6)))
    assert found == [(number, number) for number in range(6)]
    tried = where_it_ran(tmp_path, 1)
    assert len(tried) == 2
    assert tried[0] != tried[1]
    ((_, fault, _),) = faults.seen
    assert fault.startswith("task 2: nothing was read or written for 2 s (run.storage_timeout_s)")
    end = time.monotonic() + 30
    while psutil.pid_exists(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_a_node_without_memory_is_left_and_one_alone_ends_the_work_with_the_memory(
    nodes: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = nodes[0]
    with monkeypatch.context() as patch:
        # Its raylet takes nearly all memory of the machine for used, and ends the tasks of its node.
        patch.setenv("RAY_memory_usage_threshold", "0.01")
        patch.setenv("RAY_memory_monitor_refresh_ms", "100")
        short = add_node(made, 8 * GIB)
    try:

        def slow(item: int) -> int:
            note(tmp_path, item)
            time.sleep(2)
            return item

        faults = Faults()
        begun = time.monotonic()
        with pytest.raises(
            FailedOnNodes,
            match=r"^task 1: the memory of its node ran out \([\d.]+ GiB of [\d.]+ GiB in use\).* for 4\.0 GiB",
        ):
            list(OnRay(cluster.nodes, faults, memory=4 * GIB).run(slow, range(1)))
        assert time.monotonic() - begun < 90
        assert len(faults.seen) == DEATHS
        assert {node for node, *_ in faults.seen} == {short.node_id}
        assert sorted(OnRay(cluster.nodes).run(slow, range(8))) == [(number, number) for number in range(8)]
    finally:
        made.remove_node(short)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_tasks_that_find_no_room_end_the_work_with_their_names() -> None:
    import ray

    @ray.remote(num_cpus=1)
    class Other:
        def there(self) -> None:
            pass

    others = [Other.remote() for _ in range(3)]
    ray.get([other.there.remote() for other in others])
    try:
        with pytest.raises(
            BuildError,
            match=r"^no task has ended for 0\.05 min\. 0 running; 6 waiting: task 1, task 2, task 3 and 3 more, "
            r"for a node with 1 free CPUs and 1\.0 GiB",
        ):
            list(OnRay(cluster.nodes, stalled_s=3).run(abs, range(10)))
    finally:
        for other in others:
            ray.kill(other)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_a_staged_file_that_one_node_cannot_read_back_costs_nothing(tmp_path: Path) -> None:
    bad = next(node.node_id for node in cluster.nodes() if node.cpus)
    source = make_source(tmp_path / "clips", {f"{number:02}.mp4": 10 for number in range(4)})
    video = plan_build(configured(source, tmp_path / "out"), MODELS_USED, replace=False).manifest.videos[0]

    def damaged_there(item: int) -> int:
        if item == 7 or this_place().node == bad:
            raise DamagedStagedFile(video, tmp_path / "part", "its checksum is wrong")
        return item

    assert sorted(OnRay(cluster.nodes).run(damaged_there, range(6))) == [(n, n) for n in range(6)]
    with pytest.raises(FailedOnNodes) as caught:
        list(OnRay(cluster.nodes).run(damaged_there, [7]))
    assert isinstance(caught.value.error, DamagedStagedFile)
    assert len(caught.value.nodes) == TRIES_OF_DAMAGE


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nodes")
def test_the_lock_is_looked_at_while_tasks_run() -> None:
    class Lost(Exception):  # noqa: N818
        pass

    def slow(_: int) -> None:
        time.sleep(60)

    began = time.monotonic()
    looked = []

    def check() -> None:
        looked.append(time.monotonic())
        if len(looked) == 3:
            raise Lost

    with pytest.raises(Lost):
        list(OnRay(cluster.nodes).run(slow, range(4), check))
    assert time.monotonic() - began < 40
