"""Checks `run.device`: a build that silently runs on the CPU looks like a slow GPU."""

from __future__ import annotations

from faces.profiles import uses_cuda
from faces.registry import Weights
from pipeline.config import Models, Run
from pipeline.errors import BuildError


def check_device(run: Run, models: Models, weights: Weights) -> None:
    """Check that `run.device=cuda` has networks that can use a GPU, and gives each of their processes one.

    Whether the cluster has a GPU is not known here.

    Raises:
        BuildError: it does not; the message names the keys.
    """
    if run.device != "cuda":
        return
    on_gpu = {role: uses_cuda(name, weights) for role, name in models.model_dump().items()}
    if not any(on_gpu.values()):
        named = ", ".join(f"models.{role}={name}" for role, name in models.model_dump().items())
        raise BuildError(
            f"run.device=cuda: none of the configured networks can use a GPU ({named}). Leave run.device out, or "
            "use the networks of workflows/curate_paper.yaml."
        )
    needs = {
        "run.analyser_gpus": (on_gpu["detector"] or on_gpu["embedder"], run.analyser_gpus, 0.1),
        "run.scorer_gpus": (on_gpu["quality"], run.scorer_gpus, 0.5),
    }
    missing = [f"{key}={some:g}" for key, (needed, given, some) in needs.items() if needed and not given]
    if missing:
        raise BuildError(
            f"run.device=cuda: processes that hold a network for the GPU have no fraction of one. Set "
            f"{' and '.join(missing)}, or other fractions above 0."
        )
