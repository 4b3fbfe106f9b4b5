"""A build with run.device=cuda ends before any work when its processes have no part of a GPU."""

from __future__ import annotations

import pytest

from pipeline.config import Run
from pipeline.devices import check_device
from pipeline.errors import BuildError


def rejection(run: Run) -> str:
    with pytest.raises(BuildError) as caught:
        check_device(run)
    return str(caught.value)


def test_processes_without_a_share_of_a_gpu_are_named_with_their_key() -> None:
    assert "Set run.analyser_gpus=0.1, or" in rejection(Run(device="cuda"))


def test_what_can_run_is_not_rejected() -> None:
    check_device(Run(device="cuda", analyser_gpus=0.1))
    check_device(Run(device="cpu"))
