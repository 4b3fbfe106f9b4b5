"""A training run is configured in words that are checked before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from settings.loading import load_workflow
from settings.section import ConfigError, differences
from training.config import Config

WORKFLOW = """\
stage: mtd
output: runs/one
data: {root: s3://bucket/mfhq, inputs: [1, 5]}
model: {size: tiny, clip: random}
"""


def load(tmp_path: Path, *overrides: str) -> Config:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text(WORKFLOW)
    return load_workflow(workflow, list(overrides), Config)


def test_inputs_are_a_number_or_a_range(tmp_path: Path) -> None:
    assert (load(tmp_path).data.least_inputs, load(tmp_path).data.most_inputs) == (1, 5)
    fixed = load(tmp_path, "data.inputs=3").data
    assert (fixed.least_inputs, fixed.most_inputs) == (3, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.inputs=[5, 1]", "data.inputs: [5, 1] goes downwards; expected the least first"),
        ("data.inputs=0", "data.inputs"),
        ("data.targets=9", "data.targets: expected a whole number from 1 to 8 (given: 9)"),
        ("model.size=huge", "model.size: expected paper, small or tiny (given: 'huge')"),
        ("model.clip_sha256=abc", "model.clip_sha256"),
        ("mtd.mask_ratio=1", "mtd.mask_ratio: expected a number above 0 and below 1 (given: 1)"),
        ("batch=0", "batch: expected a whole number of at least 1 (given: 0)"),
        ("seed=-1", "seed"),
        ("optimiser.betas=[0.9, 1.0]", "optimiser.betas"),
        ("optimiser.ema_decay=1", "optimiser.ema_decay: expected a number "),
        ("validation.identities=1", "validation.identities: expected a whole number "),
        ("checkpoints.keep=0", "checkpoints.keep"),
        ("run.strategy=horovod", "run.strategy: expected ddp or fsdp (given: 'horovod')"),
        ("run.precision=fp16", "run.precision: expected bf16 or fp32 (given: 'fp16')"),
        ("run.per_proces=4", "run.per_proces: no such key; did you mean run.per_process?"),
        ("steps=many", "steps"),
        ("run.retry_s=1000", "run.retry_s: expected a number "),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_key(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, override)
    assert said in str(refused.value)


def changed(tmp_path: Path, *overrides: str) -> list[str]:
    def defining(config: Config) -> dict[str, Any]:
        return config.defining()

    return differences(defining(load(tmp_path)), defining(load(tmp_path, *overrides)))


@pytest.mark.parametrize(
    "override",
    [
        "output=elsewhere",
        "data.root=/a/copy",
        "run.per_process=2",
        "run.strategy=fsdp",
        "run.cache.folder=/scratch",
        "validation.every=7",
        "checkpoints.every=7",
    ],
)
def test_how_the_machines_run_it_may_change_from_one_start_to_the_next(tmp_path: Path, override: str) -> None:
    assert changed(tmp_path, override) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("steps=7", "steps: 250000 -> 7"),
        ("batch=7", "batch: 256 -> 7"),
        ("seed=7", "seed: 0 -> 7"),
        ("data.targets=7", "data.targets: 8 -> 7"),
        ("data.inputs=2", "data.inputs: [1, 5] -> 2"),
        ("model.size=small", "model.size: tiny -> small"),
        ("mtd.mask_ratio=0.5", "mtd.mask_ratio: 0.95 -> 0.5"),
        ("optimiser.ema_decay=0.5", "optimiser.ema_decay: 0.9999 -> 0.5"),
    ],
)
def test_what_shapes_the_result_may_not(tmp_path: Path, override: str, line: str) -> None:
    assert changed(tmp_path, override) == [line]


def test_weights_may_move_but_not_become_others(tmp_path: Path) -> None:
    here, there = (load(tmp_path, f"model.clip=/{place}/clip.bin").defining() for place in ("here", "there"))
    assert differences(here, there) == []
    other = load(tmp_path, "model.clip=/here/other.bin").defining()
    assert differences(here, other) == ["model.clip: clip.bin -> other.bin"]
    assert differences(here, load(tmp_path).defining()) == ["model.clip: clip.bin -> random"]
