"""Checks that a build which asks for a GPU can use one: it would run on the CPU, or fail when its work begins."""

from __future__ import annotations

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import BuildError

ON_CUDA = frozenset({"scrfd", "arcface", "topiq_face"})
"""Kinds of network that run on a GPU; the others always run on the CPU."""


def check_device(config: Config, weights: Weights) -> None:
    """Check `run.device` against the networks and the GPUs that the processes ask for.

    Raises:
        BuildError: naming the keys and what to set.
    """
    run = config.run
    if run.device == "cpu":
        return
    models = {"detector": config.models.detector, "embedder": config.models.embedder}
    analysing = _on_cuda(models, weights)
    scoring = _on_cuda({"quality": config.models.quality}, weights)
    if not analysing and not scoring:
        names = ", ".join(
            f"models.{role}={name}" for role, name in {**models, "quality": config.models.quality}.items()
        )
        raise BuildError(
            f"run.device: cuda, but {names} run on the CPU only. Set run.device=cpu, or choose networks that use "
            "a GPU, as workflows/curate_paper.yaml does."
        )
    missing = []
    if analysing and not run.analyser_gpus:
        missing.append(f"run.analyser_gpus is 0, but {' and '.join(analysing)} would run on a GPU")
    if scoring and not run.scorer_gpus:
        missing.append(f"run.scorer_gpus is 0, but {' and '.join(scoring)} would run on a GPU")
    if missing:
        raise BuildError(
            f"run.device: cuda, but Ray gives a GPU only to processes that ask for one: {'; '.join(missing)}. Set "
            "the share of a GPU that each process takes (run.analyser_gpus=0.1 run.scorer_gpus=0.5), or "
            "run.device=cpu."
        )


def _on_cuda(models: dict[str, str], weights: Weights) -> list[str]:
    return [
        f"models.{role}={name}"
        for role, name in models.items()
        if name in weights and weights[name].model.kind in ON_CUDA
    ]
