"""The errors that end a training run, in words for the person who started it."""

import torch

from storage.errors import Stopped

__all__ = ["BadSample", "RunEnded", "Stopped", "TrainingError", "out_of_memory"]


class TrainingError(RuntimeError):
    """The run cannot go on; the message says what is wrong and what to do."""


class RunEnded(TrainingError):  # noqa: N818 - names what happened, on all processes
    """The processes agreed that the run cannot go on: each of them raises it, with the same message."""


class BadSample(ValueError):  # noqa: N818 - names the thing, which the stream skips and counts
    """A sample that stays damaged however often it is read; the message names key, shard and what is wrong."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left: torch has a class for one of the ways to say so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("DefaultCPUAllocator: can't allocate memory", "out of memory", "_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
