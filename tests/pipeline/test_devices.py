"""A build that asks for a GPU gets one, or a message before any work names the keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from faces.catalogue import MODELS
from faces.registry import WeightsFile
from pipeline.config import Config
from pipeline.devices import check_device
from pipeline.errors import BuildError

WEIGHTS = {name: WeightsFile(model, Path(model.file), model.sha256) for name, model in MODELS.items()}
PAPER = {"detector": "scrfd_10g", "embedder": "arcface_r50", "quality": "topiq_nr-face"}
EMBEDDED = {"detector": "yunet", "embedder": "sface", "quality": "piqe"}


def check(models: dict[str, str], **run: object) -> None:
    config = {"source": {"path": "/clips"}, "output": "/out", "models": models, "run": run}
    check_device(Config.model_validate(config), WEIGHTS)


def message(models: dict[str, str], **run: object) -> str:
    with pytest.raises(BuildError) as caught:
        check(models, **run)
    return str(caught.value)


def test_a_build_on_the_cpu_needs_no_gpu() -> None:
    check(PAPER)
    check(EMBEDDED)


def test_a_build_whose_processes_ask_for_gpus_is_fine() -> None:
    check(PAPER, device="cuda", analyser_gpus=0.1, scorer_gpus=0.5)
    check(EMBEDDED | {"quality": "topiq_nr-face"}, device="cuda", scorer_gpus=1)


def test_networks_that_cannot_use_a_gpu_are_named() -> None:
    assert message(EMBEDDED, device="cuda", scorer_gpus=1) == (
        "run.device: cuda, but models.detector=yunet, models.embedder=sface, models.quality=piqe run on the CPU "
        "only. Set run.device=cpu, or choose networks that use a GPU, as workflows/curate_paper.yaml does."
    )


def test_processes_that_ask_for_no_gpu_are_named_with_what_to_set() -> None:
    said = message(PAPER, device="cuda")
    assert "run.analyser_gpus is 0, but models.detector=scrfd_10g and models.embedder=arcface_r50" in said
    assert "run.scorer_gpus is 0, but models.quality=topiq_nr-face" in said
    assert (
        "Set the share of a GPU that each process takes (run.analyser_gpus=0.1 run.scorer_gpus=0.5)" in said
    )
    assert "run.analyser_gpus" not in message(PAPER, device="cuda", analyser_gpus=0.1).partition(". Set")[0]
