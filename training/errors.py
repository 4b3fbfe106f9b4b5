"""The user-facing errors that end a training run."""

import torch

from storage.errors import Stopped

__all__ = ["BadSample", "RunEnded", "Stopped", "TrainingError", "out_of_memory"]


class TrainingError(RuntimeError):
    """The run cannot start or continue; the message states the cause and the remedy."""


class RunEnded(TrainingError):  # noqa: N818 - names what happened, on all processes
    """The run ends on all ranks: each rank raises this error with the same message."""


class BadSample(ValueError):  # noqa: N818 - names the thing, which the stream skips and counts
    """A sample that is damaged each time it is read; the message names key, shard and error."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory; torch has a class for only some of these errors."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("DefaultCPUAllocator: can't allocate memory", "out of memory", "_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
