"""Meeting Ray: connect to a cluster or start one here, and divide its CPUs among the steps."""

from __future__ import annotations

import logging
import warnings
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
    """How many processes may analyse videos: as asked, or as many as the cluster carries now.

    Raises:
        BuildError: the cluster cannot carry one.
    """
    import ray

    if run.analysers is not None:
        return min(run.analysers, videos)
    there: dict[str, float] = ray.cluster_resources()
    cpus = there.get("CPU", 0.0) - run.scorer_cpus * run.scorers - STAGE_CPUS
    fitting = int(cpus / run.analyser_cpus + ROUNDING)
    if run.analyser_gpus:
        gpus = there.get("GPU", 0.0) - run.scorer_gpus * run.scorers
        fitting = min(fitting, int(gpus / run.analyser_gpus + ROUNDING))
    if fitting < 1 or run.scorer_gpus * run.scorers > there.get("GPU", 0.0):
        raise BuildError(
            f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, too few for one "
            f"analyser (run.analyser_cpus={run.analyser_cpus:g}, run.analyser_gpus={run.analyser_gpus:g}) "
            f"beside {run.scorers} scorers (run.scorer_cpus={run.scorer_cpus:g}, "
            f"run.scorer_gpus={run.scorer_gpus:g}); lower these, or give run.analysers for a cluster that "
            "grows on demand"
        )
    return min(fitting, videos)
