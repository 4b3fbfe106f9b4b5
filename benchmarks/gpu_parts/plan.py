"""The parts of `gpu_check.py`, in the order in which they run, each with its time budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the check, run as `python -m <module> <arguments>`."""

    name: str
    title: str
    """For the table."""
    module: str
    arguments: tuple[str, ...] = ()
    budget_s: float = 120.0
    """Time limit of the part in seconds, after which it is killed."""
    least_s: float = 20.0
    """With less time until the deadline, the part is skipped."""


PARTS = (
    Part("tests", "tests/gpu", "gpu_parts.run_tests", budget_s=150),
    Part(
        "mtd_compiled",
        "MTD, compiled",
        "gpu_parts.step",
        ("--stage", "mtd", "--compile"),
        budget_s=150,
        least_s=60,
    ),
    # After `mtd_compiled`, whose compiled code its run takes from the cache.
    Part("stream", "stream and MTD run", "gpu_parts.stream", budget_s=150, least_s=60),
    Part("flow", "flow", "gpu_parts.step", ("--stage", "flow"), budget_s=120, least_s=45),
    Part("control", "control", "gpu_parts.step", ("--stage", "control"), budget_s=120, least_s=50),
    Part("mtd", "MTD", "gpu_parts.step", ("--stage", "mtd"), budget_s=90, least_s=30),
    Part(
        "flow_compiled",
        "flow, compiled",
        "gpu_parts.step",
        ("--stage", "flow", "--compile"),
        budget_s=180,
        least_s=60,
    ),
)
"""What is least likely to fit before the deadline comes last."""
