"""The processes of a run: how they find each other, which device each has, and how they part.

torchrun starts them and says in the environment who is who; without torchrun there is one. Three groups of the
same processes: gradients go through the default group (NCCL on GPUs), the once-a-step exchange of `consensus`
and the checkpoint's writer thread each have a gloo group of their own, because two threads in one group would
take each other's messages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from training.errors import RunEnded, TrainingError, out_of_memory

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: longer than a read is retried (`run.retry_s`, 15 minutes at most)."""


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup
    """On the CPU, for the main thread."""
    writing: dist.ProcessGroup
    """On the CPU, for the thread that writes checkpoints."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Tell the person something, once."""
        if self.leads:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def processes(deterministic: bool) -> Iterator[World]:
    """Join the other processes for the time of the `with` block.

    Args:
        deterministic: use only algorithms that give the same bits each time, where torch has them.

    Raises:
        TrainingError: a process has no device, the processes cannot find each other, or another one has gone.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    with _numerics(deterministic):
        world = _joined(rank, world_size, device)
        try:
            yield world
        except RunEnded:
            dist.destroy_process_group()  # all processes raise it, so all are here
            raise
        except (RuntimeError, MemoryError) as error:
            # The others may wait in an exchange that this process will not join: part without a word to them.
            if out_of_memory(error):
                used_up = "this machine" if device.type == "cpu" else device
                raise TrainingError(
                    f"the memory of {used_up} is used up. Lower run.per_process (the batch stays the same), "
                    "set run.activation_checkpointing=true, or run.strategy=fsdp on more processes; in the "
                    "flow stage, lower data.targets or flow.text_tokens"
                ) from error
            if _lost_another(error):
                told = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise TrainingError(
                    "another process of the run has gone; what ended it stands above or in its own log. "
                    f"The same command goes on from the last checkpoint ({told})"
                ) from error
            raise
        else:
            dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise TrainingError(
            f"process {local_rank} of this machine has no GPU: {count} can be seen. Start torchrun with "
            f"--nproc-per-node={count}"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _joined(rank: int, world_size: int, device: torch.device) -> World:
    options: dict[str, Any] = {"timeout": PATIENCE}
    if "MASTER_ADDR" not in os.environ:
        options["store"] = dist.HashStore()
    if device.type == "cuda":
        options |= {"backend": "cpu:gloo,cuda:nccl", "device_id": device}
    else:
        options["backend"] = "gloo"
    try:
        dist.init_process_group(rank=rank, world_size=world_size, **options)
        groups = [dist.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2)]
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the {world_size} processes cannot find each other through {where}: {error}. All of them must be "
            "started at about the same time, and reach that machine and port; on a machine with several networks, "
            "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME say which one to use"
        ) from error
    return World(rank, world_size, device, *groups)


@contextmanager
def _numerics(deterministic: bool) -> Iterator[None]:
    """Set what torch keeps for the whole process, and set it back for whoever trains inside another program."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    searching = torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs in programs; costs bandwidth
    torch.backends.cudnn.benchmark = False  # the fastest kernel of today may be another tomorrow
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = searching


def _lost_another(error: Exception) -> bool:
    """Whether an exchange failed because of another process; gloo has no error class of its own."""
    return isinstance(error, dist.DistError) or any(
        sign in str(error) for sign in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
