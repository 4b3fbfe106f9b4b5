"""Ranks connect or fail with a message, and leave torch's switches as they were."""

from __future__ import annotations

import socket

import pytest
import torch

from training.engine.processes import processes
from training.errors import TrainingError, out_of_memory


def test_ranks_that_cannot_connect_name_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
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
            pytest.raises(TrainingError, match=f"ranks cannot connect through 127.0.0.1:{port}"),
            processes(False),
        ):
            pass


@pytest.mark.parametrize(
    ("hints", "ending"),
    [
        ((), r"with run\.strategy=fsdp\.$"),
        (("data.targets", "a.key", "data.targets"), r"If that is not enough, lower data\.targets or a\.key$"),
    ],
)
def test_an_out_of_memory_error_names_the_keys_to_lower(hints: tuple[str, ...], ending: str) -> None:
    message = r"the memory of this machine is used up\. Lower run\.per_process .*" + ending
    try:
        with pytest.raises(TrainingError, match=message), processes(False, hints):
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
def test_out_of_memory_errors_of_all_gpu_libraries_are_recognised(message: str) -> None:
    assert out_of_memory(torch.distributed.DistBackendError(message))
    assert not out_of_memory(torch.distributed.DistBackendError("NCCL error: remote process exited"))


def test_a_failed_collective_without_a_message_is_reported_as_well() -> None:
    try:
        with (
            pytest.raises(
                TrainingError, match=r"another rank has ended; .* \(DistBackendError\)\. Run the same"
            ),
            processes(False),
        ):
            raise torch.distributed.DistBackendError
    finally:
        torch.distributed.destroy_process_group()


def test_the_process_wide_switches_of_torch_are_restored() -> None:
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
