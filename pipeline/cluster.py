"""Ray: join a cluster or start one here, and divide its resources among the operators."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config import Run
from pipeline.errors import BuildError, Terminated
from pipeline.ray_stderr import without_false_alarms

ANALYSER_MEMORY = 2**30
CURATOR_MEMORY = 3 * 2**29
SCORER_MEMORY = 2**30
"""Bytes that a process takes in ordinary work, so that Ray does not crowd a node with them: an analyser beside
scorers, one that also scores (1.55 GiB with the embedded networks, a third of it shared libraries), a scorer."""
ROUNDING = 1e-9
"""Twice 0.9 CPUs and 0.2 more must fit into 2."""
MANY = 1_000_000
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
"""A worker that dies is replaced and its video tried again. Ray Data's default is to try without limit."""


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
    if connects:
        try:
            ray.init(
                address=address,
                # The dashboard is about ten processes, and its address is printed nowhere.
                include_dashboard=False if address == LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=os.environ.get(LOG_TO_DRIVER) == "1",
            )
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            raise BuildError(
                f"Ray did not start within {wait_s} s: this machine is too busy, or short of memory. Run the same "
                "command again when the load is lower."
            ) from error
    # Warnings of Ray Data are about blocks and operators; the build reports on videos itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    return connects


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
        BuildError: no server listens.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "local" and "auto"
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise BuildError(
            f"{ADDRESS}: no Ray cluster answers at {address} ({error.strerror or error}). Start it, correct the "
            f"address, or unset {ADDRESS} to run on this machine."
        ) from error


def analyser_memory(run: Run) -> int:
    """Bytes that an analyser takes; one that also chooses the images takes more."""
    return ANALYSER_MEMORY if run.scorers else CURATOR_MEMORY


def analysers(run: Run, videos: int) -> tuple[int, int]:
    """How many processes analyse videos: at the start, and at most.

    Raises:
        BuildError: the cluster has no room for one beside the scorers, and is not configured to grow.
    """
    import ray

    return divide(run, videos, ray.cluster_resources(), joined=_address() != LOCAL)


def divide(run: Run, videos: int, resources: dict[str, float], *, joined: bool) -> tuple[int, int]:
    """How many processes analyse videos on a cluster with these resources.

    Args:
        run: the configuration of the processes.
        videos: number of videos left to curate.
        resources: "CPU", "GPU" and "memory" in bytes, as Ray counts them.
        joined: whether the cluster existed before; one that is started here never grows.

    Returns:
        The number at the start, and the most.

    Raises:
        BuildError: as for `analysers`.
    """
    needs = {
        "CPU": (run.analyser_cpus, run.scorer_cpus * run.scorers),
        "GPU": (run.analyser_gpus, run.scorer_gpus * run.scorers),
        "memory": (analyser_memory(run), SCORER_MEMORY * run.scorers),
    }
    fitting = min(_fitting(resources.get(kind, 0.0), *need) for kind, need in needs.items())
    grows = joined and run.analysers is not None
    if fitting < 1 and not grows:
        raise BuildError(_no_room(run, resources, joined=joined))
    # Each keeps a CPU busy: a share below 1 makes room for scorers, not for more analysers than CPUs.
    cpus = max(1, int(resources.get("CPU", 0.0)))
    most = min(run.analysers or min(fitting, cpus), videos)
    # Ray starts these before the scorers: more than fit beside them would leave the scorers waiting without end.
    return max(1, min(most, fitting)), most


def _no_room(run: Run, resources: dict[str, float], *, joined: bool) -> str:
    where = "the Ray cluster" if joined else "this machine"
    grow = ", or set run.analysers on a cluster that grows on demand" if joined else ""
    if not resources.get("GPU") and (run.analyser_gpus or run.scorer_gpus):
        return (
            f"run.analyser_gpus={run.analyser_gpus:g} and run.scorer_gpus={run.scorer_gpus:g} ask for GPUs, but "
            f"{where} has none that Ray sees. Set both to 0 and run.device=cpu{grow}."
        )
    beside = (
        f" beside {run.scorers} scorers (run.scorer_cpus={run.scorer_cpus:g}, "
        f"run.scorer_gpus={run.scorer_gpus:g}, 1 GiB each)"
    )
    return (
        f"{where} has {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs and "
        f"{resources.get('memory', 0) / 2**30:.1f} GiB of memory, too few for one analyser "
        f"(run.analyser_cpus={run.analyser_cpus:g}, run.analyser_gpus={run.analyser_gpus:g}, "
        f"{analyser_memory(run) / 2**30:g} GiB){beside if run.scorers else ''}. Lower these{grow}."
    )


def _fitting(there: float, each: float, others: float) -> int:
    """How many processes that need `each` fit beside the others."""
    if others > there:
        return 0
    return int((there - others) / each + ROUNDING) if each else MANY


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
