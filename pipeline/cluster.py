"""Meeting Ray: connect to a cluster or start one here, and divide its CPUs among the steps."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config import Run
from pipeline.errors import BuildError

STAGE_CPUS = 0.1
"""Choosing eight images and writing one small file is next to nothing."""
ANALYSER_MEMORY = 2**30
SCORER_MEMORY = 2**30
"""Bytes that a process takes in ordinary work, so that Ray does not crowd a node with them."""
ROUNDING = 1e-9
"""Twice 0.9 CPUs and 0.2 more must fit into 2."""
MANY = 1_000_000
START_S = 240
"""How long Ray may take to start on this machine."""
LOG_TO_DRIVER = "RAY_LOG_TO_DRIVER"
"""Ray's own switch. What workers write stays in Ray's logs unless it is 1: a worker that crashes and is replaced,
and now and then one that Ray ends because it is idle, leave stacks that would look like the build's end. What a
crash costs is told by the row of its video."""
RESTARTS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 3}
"""A worker that dies is replaced and its video tried again, but not for ever, as is Ray Data's default."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, as it does inside a Ray job, or start one of our own here.

    Ray by itself would look for a cluster that was once started on this machine, and wait for ever for one that
    has ended since.

    Raises:
        BuildError: Ray does not start here.
    """
    # Ray reads it when it is imported; its own half a minute is too short for a busy machine.
    wait_s = os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_S))
    import ray
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    if not ray.is_initialized():
        try:
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "local"),
                logging_level=logging.ERROR,
                log_to_driver=os.environ.get(LOG_TO_DRIVER) == "1",
            )
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            raise BuildError(
                f"Ray did not start within {wait_s} s: this machine is too busy, or short of memory. Run the same "
                "command again when it is less so"
            ) from error
    # Warnings of Ray Data are about blocks and operators; what concerns videos, the build says itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []


def analysers(run: Run, videos: int) -> tuple[int, int]:
    """How many processes analyse videos: at the start, and at most.

    Raises:
        BuildError: the cluster cannot carry one beside the scorers, and is not said to grow.
    """
    import ray

    there: dict[str, float] = ray.cluster_resources()
    needs = {
        "CPU": (run.analyser_cpus, run.scorer_cpus * run.scorers + STAGE_CPUS),
        "GPU": (run.analyser_gpus, run.scorer_gpus * run.scorers),
        "memory": (ANALYSER_MEMORY, SCORER_MEMORY * run.scorers),
    }
    fitting = min(_fitting(there.get(kind, 0.0), *need) for kind, need in needs.items())
    if fitting < 1 and run.analysers is None:
        raise BuildError(
            f"the cluster has {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs and "
            f"{there.get('memory', 0) / 2**30:.1f} GiB of memory, too few for one analyser "
            f"(run.analyser_cpus={run.analyser_cpus:g}, run.analyser_gpus={run.analyser_gpus:g}, 1 GiB) beside "
            f"{run.scorers} scorers (run.scorer_cpus={run.scorer_cpus:g}, run.scorer_gpus={run.scorer_gpus:g}, "
            "1 GiB); lower these, or give run.analysers for a cluster that grows on demand"
        )
    most = min(run.analysers or fitting, videos)
    # Ray starts these before the scorers: more than fit beside them would leave the scorers waiting for ever.
    return max(1, min(most, fitting)), most


def _fitting(there: float, each: float, others: float) -> int:
    """How many processes that need `each` fit into what the others leave."""
    if others > there:
        return 0
    return int((there - others) / each + ROUNDING) if each else MANY


@contextmanager
def ray_errors() -> Iterator[None]:
    """Turn what Ray raises into a message: its own is a stack of stacks, and lies in its logs anyway."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[-1] if lines else type(error).__name__
        raise BuildError(
            f"Ray gave up: {cause} (see its logs). Finished videos are kept; the same command again continues"
        ) from error
