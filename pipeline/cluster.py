"""Meeting Ray: connect to a cluster or start one here, and divide its CPUs among the steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config import Run
from pipeline.errors import BuildError
from shards.atomic import OutOfSpace

STAGE_CPUS = 0.1
"""Choosing eight images and writing one small file is next to nothing."""
ANALYSER_MEMORY = 2**30
SCORER_MEMORY = 2**30
"""Bytes that a process takes in ordinary work, so that Ray does not crowd a node with them."""
PATIENCE: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 3}
"""A worker that dies is replaced and its video tried again, but not for ever, as is Ray Data's default."""


def connect() -> None:
    """Join the cluster this process belongs to, or start one on this machine.

    `ray job submit` and `RAY_ADDRESS` name a cluster; without either, Ray looks for one that `ray start` has
    started here, and starts its own otherwise.
    """
    import ray
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    # Warnings of Ray Data are about blocks and operators; what concerns videos, the build says itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []


def analysers(run: Run, videos: int) -> int:
    """How many processes analyse videos: as asked, or as many as the cluster's CPUs carry.

    Raises:
        BuildError: the cluster cannot carry one.
    """
    import ray

    total: dict[str, Any] = ray.cluster_resources()
    cpus, gpus = float(total.get("CPU", 0)), float(total.get("GPU", 0))
    wanted_gpus = run.scorer_gpus * run.scorers + run.analyser_gpus
    if wanted_gpus > gpus:
        raise BuildError(
            f"the build asks for {wanted_gpus:g} GPUs (run.scorer_gpus, run.analyser_gpus), the cluster has "
            f"{gpus:g}; set both to 0 and run.device=cpu to build without"
        )
    free = cpus - run.scorer_cpus * run.scorers - STAGE_CPUS
    fitting = int(free / run.analyser_cpus + 1e-9)
    if run.analyser_gpus:
        fitting = min(fitting, int((gpus - run.scorer_gpus * run.scorers) / run.analyser_gpus + 1e-9))
    if fitting < 1 or (run.analysers or 1) > fitting:
        raise BuildError(
            f"the cluster's {cpus:g} CPUs carry {fitting} analysers of {run.analyser_cpus:g} CPUs beside "
            f"{run.scorers} scorers of {run.scorer_cpus:g}; lower run.analysers, run.analyser_cpus or "
            "run.scorer_cpus"
        )
    return min(run.analysers or fitting, max(videos, 1))


@contextmanager
def full_disk_in_words() -> Iterator[None]:
    """Raise a worker's OutOfSpace as itself, not wrapped in Ray's errors and their stacks."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OutOfSpace):
                raise OutOfSpace(cause.path, cause.free_bytes, cause.code) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise
