"""A profile of some steps, and a history of the GPU's memory in them.

<output>/profile/rank-0.trace.json.gz       for chrome://tracing or https://ui.perfetto.dev
<output>/profile/rank-0.memory.pickle       for https://docs.pytorch.org/memory_viz; only on a GPU
"""

from __future__ import annotations

import gzip
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from training.config import Profile
from training.errors import TrainingError

FOLDER = "profile"
MOST_EVENTS = 1_000_000
"""Allocations that a memory history holds at most."""
_ABOVE_ERRORS = "6"
"""Level of the log of torch's profiler."""


class Profiler:
    """Records a window of steps of this rank; a context manager that ends a recording that is still open.

    Args:
        config: which steps; None records nothing.
        output: of the run.
        rank: this one.
        device: of this rank.
    """

    def __init__(self, config: Profile | None, output: Path, rank: int, device: torch.device) -> None:
        self._config = config if config is not None and rank < config.ranks else None
        self._folder = output / FOLDER
        self._name = f"rank-{rank}"
        self._cuda = device.type == "cuda"
        self._profile: Any = None
        self._left = -1
        """Steps of the window that are left; -1 before it."""

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: object) -> None:
        if self._profile is not None:
            with suppress(TrainingError):  # the error that ended the run is the one to show
                self._write()

    def before(self, step: int) -> None:
        """Call before each step.

        Args:
            step: 0, 1, … of the run; a resumed run begins its window where it resumes, if that is later.
        """
        if self._config is None or self._profile is not None or self._left == 0:
            return
        if step >= self._config.first_step:
            self._left = self._config.steps
            self._start()

    def after(self) -> Path | None:
        """Call after each step; the trace, once the window has ended.

        Raises:
            TrainingError: the files cannot be written.
        """
        if self._profile is None:
            return None
        self._left -= 1
        return self._write() if self._left == 0 else None

    def _write(self) -> Path:
        profile, self._profile = self._profile, None
        if self._cuda:
            torch.cuda.synchronize()
        profile.stop()
        trace = self._folder / f"{self._name}.trace.json.gz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            profile.export_chrome_trace(str(trace))
            if not self._cuda:
                check_whole(trace)
            if self._cuda and self._config is not None and self._config.memory:
                torch.cuda.memory._dump_snapshot(str(self._folder / f"{self._name}.memory.pickle"))
        except OSError as error:
            raise TrainingError(
                f"run.profile: {trace} cannot be written: {error.strerror or error}"
            ) from error
        finally:
            self._forget_memory()
        return trace

    def _start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        if not self._cuda:
            # A torch that was built for GPUs asks the driver for them at the start of every profile, and calls it
            # an error that there is none. What matters of that log, a trace that cannot be written, is checked.
            os.environ.setdefault("KINETO_LOG_LEVEL", _ABOVE_ERRORS)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profile = profile(activities=activities, record_shapes=True)
        self._profile.start()
        if self._cuda and self._config is not None and self._config.memory:
            torch.cuda.memory._record_memory_history(max_entries=MOST_EVENTS)

    def _forget_memory(self) -> None:
        if self._cuda:
            with suppress(RuntimeError):
                torch.cuda.memory._record_memory_history(enabled=None)


def check_whole(trace: Path) -> None:
    """Check that a trace was written to its end: torch's profiler only logs that a disk is full.

    Raises:
        TrainingError: it was not.
    """
    end = b""
    try:
        with gzip.open(trace) as file:
            while part := file.read(2**20):
                end = (end + part)[-16:]
    except (EOFError, gzip.BadGzipFile, zlib.error):
        end = b""
    if not end.rstrip().endswith(b"}"):
        raise TrainingError(
            f"run.profile: {trace} is not whole. Check the free space of its disk and of the directory for "
            "temporary files (TMPDIR), or profile fewer steps"
        )
