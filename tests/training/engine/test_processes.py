"""Processes find each other or say why not, and leave torch as they found it."""

from __future__ import annotations

import socket

import pytest
import torch

from training.engine.processes import processes
from training.errors import TrainingError, out_of_memory


def test_processes_that_cannot_find_each_other_say_where_they_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(TrainingError, match=f"cannot find each other through 127.0.0.1:{port}"),
            processes(False),
        ):
            pass


def test_memory_that_is_used_up_is_said_with_what_to_lower() -> None:
    said = r"the memory of this machine is used up\. Lower run\.per_process .* data\.targets or flow\.text_tokens"
    try:
        with pytest.raises(TrainingError, match=said), processes(False):
            torch.empty(2**50)
    finally:
        torch.distributed.destroy_process_group()  # left to the end of the process, which does not come here


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'",
    ],
)
def test_the_ways_in_which_a_gpu_s_libraries_say_that_memory_is_used_up(message: str) -> None:
    assert out_of_memory(torch.distributed.DistBackendError(message))
    assert not out_of_memory(torch.distributed.DistBackendError("NCCL error: remote process exited"))


def test_an_exchange_that_failed_without_a_word_is_told_as_well() -> None:
    try:
        with (
            pytest.raises(TrainingError, match=r"has gone; .* last checkpoint \(DistBackendError\)"),
            processes(False),
        ):
            raise torch.distributed.DistBackendError
    finally:
        torch.distributed.destroy_process_group()


def test_what_torch_keeps_for_the_whole_process_is_set_back() -> None:
    def settings() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with processes(deterministic=True):
            assert settings() == (True, False)
        assert settings() == before
    finally:
        torch.backends.cudnn.benchmark = False
