"""Checks `run.device`: a build that silently runs on the CPU looks like a slow GPU."""

from __future__ import annotations

from pipeline.config import Run
from pipeline.errors import BuildError, MachineFault


def check_device(run: Run) -> None:
    """Check that `run.device=cuda` gives each process that holds a network for the GPU a part of one.

    Analysers hold the detector and the embedder; the quality network is in the scorers, or without scorers in the
    analysers. Whether the cluster has a GPU is not known here.

    Raises:
        BuildError: it does not; the message names the keys.
    """
    if run.device != "cuda":
        return
    missing = [] if run.analyser_gpus else ["run.analyser_gpus=0.1"]
    if run.scorers and not run.scorer_gpus:
        missing.append("run.scorer_gpus=0.5")
    if missing:
        raise BuildError(
            f"run.device=cuda: processes that hold a network for the GPU have no fraction of one. Set "
            f"{' and '.join(missing)}, or other fractions above 0."
        )


def gpu_fault(error: Exception, run: Run) -> MachineFault:
    """The fault of a machine whose GPU failed: what fails once also fails for every later video."""
    text = str(error)
    again = "the same command again continues, and all finished videos stay valid"
    if type(error).__name__ == "OutOfMemoryError" or "memory" in text.lower():
        scorers = f"run.scorer_gpus (now {run.scorer_gpus:g}) or " if run.scorers else ""
        return MachineFault(
            f"The GPU's memory ran out: {text}. Raise {scorers}run.analyser_gpus (now {run.analyser_gpus:g}), so "
            f"that fewer processes share a GPU; {again}"
        )
    return MachineFault(f"A network failed on the GPU: {text}; {again}")
