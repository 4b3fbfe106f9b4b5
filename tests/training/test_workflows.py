"""The workflows that are shipped can be used as they are, and the paper's is the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings.loading import load_workflow
from training.config import Config

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("train_*.yaml"))


def load(name: str) -> Config:
    (path,) = (path for path in WORKFLOWS if path.stem == name)
    return load_workflow(path, ["data.root=/data/mfhq", "output=/data/run"], Config)


def test_there_is_one_for_each_size() -> None:
    for stage, sizes in (("flow", ["paper", "tiny"]), ("mtd", ["paper", "small", "tiny"])):
        names = [path.stem for path in WORKFLOWS if path.stem.startswith(f"train_{stage}_")]
        assert names == [f"train_{stage}_{size}" for size in sizes]
        assert [load(name).model.size for name in names] == sizes
        assert {load(name).stage for name in names} == {stage}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_needs_nothing_but_data_set_and_output(path: Path) -> None:
    config = load(path.stem)
    assert (config.data.root, config.output) == ("/data/mfhq", Path("/data/run"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_how_it_is_started(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"workflows/{path.name} data.root=" in line for line in comments)


def test_the_papers_numbers() -> None:
    config = load("train_mtd_paper")
    assert (config.steps, config.mtd.mask_ratio) == (250_000, 0.95)
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert config.model.clip == "hub"


def test_the_papers_numbers_of_the_second_stage() -> None:
    config = load("train_flow_paper")
    assert (config.steps, config.flow.prompt) == (10_000, "photo of a person.")
    assert (config.data.inputs, config.data.targets) == (3, 8)
    assert (config.flow.base, config.flow.timesteps) == ("black-forest-labs/FLUX.1-dev", "uniform")
    assert config.flow.revision
    assert config.model.clip == "encoder"


@pytest.mark.parametrize("stage", ["mtd", "flow"])
@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
def test_the_papers_batch_can_be_cut_for_usual_numbers_of_gpus(processes: int, stage: str) -> None:
    config = load(f"train_{stage}_paper")
    assert config.batch % (processes * config.run.per_process) == 0


def test_the_demo_can_be_trained_on_the_few_identities_that_the_demo_builds() -> None:
    config = load("train_mtd_tiny")
    assert config.batch <= 8
    assert (config.model.size, config.model.clip) == ("tiny", "random")
