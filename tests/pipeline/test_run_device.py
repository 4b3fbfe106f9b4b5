"""A build with run.device=cuda ends before any work when no network would use a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from faces.catalogue import MODELS
from faces.registry import WeightsFile
from pipeline.config import Models, Run
from pipeline.devices import check_device
from pipeline.errors import BuildError

WEIGHTS = {name: WeightsFile(entry, Path(entry.file), entry.sha256) for name, entry in MODELS.items()}
EMBEDDED = Models(detector="yunet", embedder="sface", quality="piqe")
PAPER = Models(detector="scrfd_10g", embedder="arcface_r50", quality="topiq_nr-face")


def rejection(run: Run, models: Models) -> str:
    with pytest.raises(BuildError) as caught:
        check_device(run, models, WEIGHTS)
    return str(caught.value)


def test_networks_that_only_run_on_the_cpu_reject_cuda() -> None:
    message = rejection(Run(device="cuda", scorer_gpus=1, analyser_gpus=1), EMBEDDED)
    assert "run.device=cuda: none of the configured networks can use a GPU" in message
    assert "models.quality=piqe" in message
    assert "curate_paper.yaml" in message


def test_processes_without_a_share_of_a_gpu_are_named_with_their_key() -> None:
    message = rejection(Run(device="cuda"), PAPER)
    assert "run.analyser_gpus=0.1 and run.scorer_gpus=0.5" in message
    assert "run.scorer_gpus" not in rejection(Run(device="cuda", scorer_gpus=0.5), PAPER)
    only_quality = EMBEDDED.model_copy(update={"quality": "topiq_nr-face"})
    assert "run.analyser_gpus" not in rejection(Run(device="cuda"), only_quality)


def test_what_can_run_is_not_rejected() -> None:
    check_device(Run(device="cuda", analyser_gpus=0.1, scorer_gpus=0.5), PAPER, WEIGHTS)
    check_device(Run(device="cpu"), EMBEDDED, WEIGHTS)
