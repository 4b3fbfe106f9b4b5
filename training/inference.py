"""What commands that compute with trained networks share: the device, and memory that does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.errors import TrainingError, out_of_memory


def pick_device(name: str | None) -> torch.device:
    """The device that `--device` names; when None, a GPU where there is one.

    Raises:
        TrainingError: this machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"--device: {name} is no device. Pass cuda or cpu") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device: this machine has no GPU that torch can use. Pass cpu, or leave it out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"--device: {name} is none of the {torch.cuda.device_count()} GPUs of this machine"
        )
    return device


@contextmanager
def memory_error(message: str) -> Iterator[None]:
    """Turn a lack of memory in the block into a `TrainingError` with this message; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(message) from error
