"""Ray: join a cluster or start one here, and see its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.cluster.node_faults import Place
from pipeline.cluster.on_ray import TASK_MEMORY, OnRay
from pipeline.cluster.place import node_name
from pipeline.cluster.ray_stderr import without_false_alarms
from pipeline.cluster.sizing import NodeResources, task_shape
from pipeline.cluster.workers import MANY_SHARDS, InProcess, Processes, Workers
from pipeline.config import Config, Run
from pipeline.errors import BuildError, Terminated
from pipeline.progress import Reporter

START_S = 240
"""How long Ray may take to start on this machine."""
REACH_S = 10.0
"""How long the head of a cluster may take to accept a connection."""
ADDRESS = "RAY_ADDRESS"
LOCAL = "local"
LOG_TO_DRIVER = "RAY_LOG_TO_DRIVER"
"""Ray's own switch. What workers write stays in Ray's logs unless it is 1: a worker that crashes and is replaced,
or that Ray ends because it is idle, leaves stack traces that look like the end of the build. The row
of its video states the cost of a crash."""
RESTARTS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 3}
"""A worker that dies is replaced and its video tried again. Ray Data's default is to try without limit; a video
whose node is gone would wait for room elsewhere. After three attempts it is left to the next pass."""
BUSY = 0.75
"""A pool grows while so many of its actors are at work: with one video each, a few are always between two."""
INIT_DEATHS = 50
"""Actors of a pool that may die in a row while they start, such as on a node that lacks this package."""
STALLED_S = 1800.0
"""Seconds without any result after which Ray gives a pass up, beyond what one file may take."""


@contextmanager
def session() -> Iterator[None]:
    """Ray for the time of the `with` block: the cluster that RAY_ADDRESS names, or one that is started here.

    What Ray raises becomes one message, its needless lines on standard error are left out, and a cluster
    that was started here ends with the block.

    Raises:
        BuildError: Ray does not start here, the cluster cannot be reached, or Ray fails within the block.
    """
    with without_false_alarms():
        connected = _connect()
        _stop_on_sigterm()
        import ray

        try:
            with _ray_errors():
                yield
        finally:
            if connected:
                ray.shutdown()


@contextmanager
def workers(config: Config, videos: int, reporter: Reporter) -> Iterator[Workers]:
    """Where shards are written and checked: where it pays, for the time of the `with` block.

    A process takes seconds to start, so a few shards are this process's work. More are that of the cluster that is
    joined, or that RAY_ADDRESS names, else of processes on this machine: starting Ray takes longer.

    Args:
        config: of the build.
        videos: how many it has.
        reporter: takes the faults of nodes.

    Raises:
        BuildError: as `session`.
    """
    if videos < MANY_SHARDS * config.shards.max_samples:
        yield InProcess()
    elif _is_joined(sys.modules.get("ray")):
        yield _on_cluster(config.run, reporter)
    elif _address() != LOCAL:
        with session():
            yield _on_cluster(config.run, reporter)
    else:
        yield Processes(timeout_s=config.run.storage_timeout_s)


def _on_cluster(run: Run, reporter: Reporter) -> Workers:
    """Tasks on the cluster that is joined. On one without CPUs that does not grow, they would wait without end.

    The machine of the driver takes them then: a build whose videos are all curated needs few core-hours more.
    """
    if task_shape(nodes(), TASK_MEMORY) is None and run.analysers is None:
        reporter.message(
            "No node of the Ray cluster has CPUs: shards are written and checked on this machine", "message"
        )
        return Processes(timeout_s=run.storage_timeout_s)

    def report(place: Place, fault: str, first: bool) -> None:
        if place.node:
            reporter.monitor.fault(place.node, place.name, fault)
        if first:
            text = f"Node {place.name} failed, its tasks are tried again: {fault}"
            reporter.message(text, "fault", logging.ERROR, node=place.name)

    return OnRay(nodes, report, timeout_s=run.storage_timeout_s)


def _is_joined(ray: Any) -> bool:
    return ray is not None and bool(ray.is_initialized())


def _connect() -> bool:
    """Join or start a cluster; False when this process has joined one before.

    Ray by itself looks for a cluster that was once started on this machine, and waits without limit for one that
    has ended since.
    """
    # Ray reads it when it is imported; its own half a minute is too short for a busy machine.
    wait_s = os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_S))
    address = _address()
    _check_reachable(address)
    import ray
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    connects = not ray.is_initialized()
    verbose = os.environ.get(LOG_TO_DRIVER) == "1"
    # Ray prints what its raylets say of each lost worker and node, whatever `log_to_driver` says.
    ray._private.worker._worker_logs_enabled = verbose
    if connects:
        try:
            ray.init(
                address=address,
                # The dashboard is about ten processes, and its address is printed nowhere.
                include_dashboard=False if address == LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=verbose,
            )
        except Exception as error:
            if "Version mismatch" in str(error):
                facts = " ".join(str(error).split()).removeprefix("Version mismatch: ").removesuffix(".")
                raise BuildError(
                    f"{facts}. Ray needs equal versions of Ray and Python: run the build with those of the "
                    "cluster, such as by `ray job submit`."
                ) from error
            if address != LOCAL and isinstance(error, ConnectionError | ValueError | RuntimeError):
                cause = " ".join(str(error).split())[:300]
                raise BuildError(
                    f"{ADDRESS}: cannot join the cluster at {address}: {cause}. Where it asks for a token, set "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to that of the cluster."
                ) from error
            if "timed out during startup" not in str(error):
                raise
            raise BuildError(
                f"Ray did not start within {wait_s} s: this machine is too busy, or short of memory. Run the same "
                "command again when the load is lower."
            ) from error
    # What Ray Data logs is about blocks and operators; the build reports on videos and nodes itself.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    # Each row of results reaches the driver at once, and not when its task ends.
    context.target_max_block_size = 1
    # A block that was lost with its node does not end the build: the next pass has what is not staged.
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    context.autoscaling_config.actor_pool_util_upscaling_threshold = BUSY
    return connects


def give_up_after(seconds: float) -> None:
    """Let a pass of Ray Data end in an error when no file was finished for longer than one file may take.

    Args:
        seconds: that one file may take.
    """
    from ray.data import DataContext

    DataContext.get_current().execution_no_progress_timeout_s = STALLED_S + seconds


def _stop_on_sigterm() -> None:
    """Take SIGTERM back from Ray, whose handler prints stacks."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _address() -> str:
    return os.environ.get(ADDRESS) or LOCAL


def _check_reachable(address: str) -> None:
    """Check that a server listens at `host:port`: Ray itself tries for minutes, with a line every second.

    Raises:
        BuildError: no server listens, or it is not the address of a head.
    """
    if address in {LOCAL, "auto"}:
        return
    if "://" in address:
        raise BuildError(
            f"{ADDRESS}={address} is no address to join. Give HOST:PORT of the head, such as head:6379, on a "
            "machine of the cluster; from elsewhere submit a job (workflows/curate/submit.sh)."
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise BuildError(f"{ADDRESS}={address}: expected HOST:PORT of the head, such as head:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise BuildError(
            f"{ADDRESS}: no Ray cluster answers at {address} ({error.strerror or error}). Start it, correct the "
            f"address, or unset {ADDRESS} to run on this machine."
        ) from error


def address() -> str:
    """The cluster for people: its address, or that it is one of this machine alone."""
    return _address() if joined() else "started on this machine for the build"


def dashboard() -> str:
    """The URL of the dashboard of the cluster that is joined; empty where it has none."""
    import ray

    address = str(ray._private.worker.get_dashboard_url() or "")
    return f"http://{address}" if address else ""


def nodes() -> list[NodeResources]:
    """The nodes that live now."""
    import ray

    return [
        NodeResources(
            node["NodeID"],
            node_name(node["NodeManagerAddress"], node["NodeManagerHostname"], node["NodeID"]),
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            int(node["Resources"].get("memory", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def analysers() -> Counter[str]:
    """How many analysers of this build live on each node, by Ray's id of the node."""
    import ray
    from ray._private.state import actors  # the public API needs the dashboard, which a local cluster has not

    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    return Counter(
        actor["Address"]["NodeID"]
        for actor in actors(job_id=job, actor_state_name="ALIVE").values()
        if actor["ActorClassName"].startswith("MapWorker(")
    )


def joined() -> bool:
    """Whether the cluster existed before the build, and may grow; one that is started here never does."""
    return _address() != LOCAL


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Turn what Ray raises into a message: Ray's own is a stack of stacks, and is in its logs as well."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[-1] if lines else type(error).__name__
        raise BuildError(
            f"Ray failed: {cause} (its logs have more). Finished videos are kept: run the same command again to "
            "continue."
        ) from error
