"""Checks `run.device`: a build that silently runs on the CPU looks like a slow GPU."""

from __future__ import annotations

from pipeline.config import Run
from pipeline.errors import BuildError, MachineFault


def check_device(run: Run) -> None:
    """Check that `run.device=cuda` gives each analyser a part of a GPU; not whether the cluster has one.

    Raises:
        BuildError: it does not; the message names the key.
    """
    if run.device == "cuda" and not run.analyser_gpus:
        raise BuildError(
            "run.device=cuda: the analysers have no fraction of a GPU. Set run.analyser_gpus=0.1, or another "
            "fraction above 0."
        )


def gpu_fault(error: Exception, run: Run) -> MachineFault:
    """The fault of a machine whose GPU failed: what fails once also fails for every later video."""
    text = str(error)
    again = "the same command again continues, and all finished videos stay valid"
    if type(error).__name__ == "OutOfMemoryError" or "memory" in text.lower():
        return MachineFault(
            f"The GPU's memory ran out: {text}. Raise run.analyser_gpus (now {run.analyser_gpus:g}), so that "
            f"fewer processes share a GPU; {again}"
        )
    return MachineFault(f"A network failed on the GPU: {text}; {again}")
