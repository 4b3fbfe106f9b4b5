"""The ranks of a run: how their processes join, which device each has, and how they end.

torchrun starts them and sets the rank in the environment; without torchrun there is one. The ranks have three
process groups: gradients use the default one (NCCL on GPUs); the collectives on the CPU (`collectives.py`) and
the thread that writes checkpoints each have a gloo group, because two threads in one group would take each
other's messages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from training.errors import RunEnded, TrainingError, out_of_memory

TIMEOUT = timedelta(minutes=30)
"""Of a collective: longer than a read is retried (`run.retry_s`, 15 minutes at most)."""


@dataclass(frozen=True)
class World:
    """The rank of this process, and its process groups."""

    rank: int
    world_size: int
    device: torch.device
    main_group: dist.ProcessGroup
    """On the CPU, for the main thread."""
    writing: dist.ProcessGroup
    """On the CPU, for the thread that writes checkpoints."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and messages for all ranks."""
        return self.rank == 0

    def message(self, text: str) -> None:
        """Show a message to the user, from rank 0 alone."""
        if self.is_main:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def processes(
    deterministic: bool, memory_hints: Sequence[str] = (), timeout: timedelta = TIMEOUT
) -> Iterator[World]:
    """Join the process groups for the time of the `with` block.

    Args:
        deterministic: use only algorithms that give the same bits each time, where torch has them.
        memory_hints: config keys, besides those of `run`, that an out-of-memory error names.
        timeout: how long a rank waits for the others in a collective.

    Raises:
        TrainingError: a rank has no device, the ranks cannot connect, another rank has ended, or memory is used
            up.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    with _numerics(deterministic):
        world = _join(rank, world_size, device, timeout)
        try:
            yield world
        except RunEnded:
            dist.destroy_process_group()  # every rank raises it, so every rank gets here
            raise
        except (RuntimeError, MemoryError) as error:
            # Other ranks may wait in a collective that this one will not join, so the group is not destroyed here.
            if out_of_memory(error):
                raise TrainingError(_out_of_memory(device, memory_hints)) from error
            if _lost_another(error):
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise TrainingError(
                    f"another rank has ended; the messages above or its own log show why ({reason}). Run the same "
                    "command again to continue"
                ) from error
            raise
        else:
            dist.destroy_process_group()


def _out_of_memory(device: torch.device, hints: Sequence[str]) -> str:
    what = "this machine" if device.type == "cpu" else device
    besides = f" If that is not enough, lower {' or '.join(dict.fromkeys(hints))}" if hints else ""
    return (
        f"the memory of {what} is used up. Lower run.per_process (the batch stays the same), set "
        f"run.activation_checkpointing=true, or use more ranks with run.strategy=fsdp.{besides}"
    )


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise TrainingError(
            f"local rank {local_rank} has no GPU: {count} are visible. Start torchrun with "
            f"--nproc-per-node={count}"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _join(rank: int, world_size: int, device: torch.device, timeout: timedelta) -> World:
    options: dict[str, Any] = {"timeout": timeout}
    if "MASTER_ADDR" not in os.environ:
        options["store"] = dist.HashStore()
    if device.type == "cuda":
        options |= {"backend": "cpu:gloo,cuda:nccl", "device_id": device}
    else:
        options["backend"] = "gloo"
    try:
        dist.init_process_group(rank=rank, world_size=world_size, **options)
        groups = [dist.new_group(backend="gloo", timeout=timeout) for _ in range(2)]
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the {world_size} ranks cannot connect through {where}: {error}. Start all of them at about the same "
            "time, on machines that reach that address; with several networks, choose one with "
            "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        ) from error
    return World(rank, world_size, device, *groups)


@contextmanager
def _numerics(deterministic: bool) -> Iterator[None]:
    """Set torch's process-wide switches, and restore them for a program that trains within its own process."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs bandwidth
    torch.backends.cudnn.benchmark = False  # a search may choose other kernels in the next run
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = benchmark


def _lost_another(error: Exception) -> bool:
    """Whether a collective failed because another rank has ended; gloo has no error class of its own."""
    return isinstance(error, dist.DistError) or any(
        sign in str(error) for sign in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
