"""Runs on the paper's baselines: real ranks, stopped and resumed, exported with what they did not train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from trainers import Run

from training.export import export
from training.models.clip import ClipTower
from training.models.sizes import SIZES
from training.representations.build import load_representation

pytestmark = pytest.mark.slow

FLOW = (
    "decoders.mtd=null",
    "decoders.flow.side=16",
    "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "decoders.flow.sample_steps=2",
    "data.inputs=2",
    "batch=2",
    "steps=4",
    "validation.every=4",
)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "tower.safetensors"
    save_file(ClipTower(SIZES["tiny"]).visual.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("kind", "strategy"), [("clip", "ddp"), ("arcface", "ddp"), ("arcface_clip", "fsdp")]
)
def test_a_run_stops_resumes_and_is_exported(
    dataset: Path, tmp_path: Path, clip_file: Path, kind: str, strategy: str
) -> None:
    how = [*FLOW, f"representation.kind={kind}", f"run.strategy={strategy}"]
    if "clip" in kind:
        how.append(f"representation.clip={clip_file}")
    if "arcface" in kind:
        how.append("representation.recogniser=sface")
    straight, stopped = (Run(tmp_path / name, dataset, *how) for name in ("straight", "stopped"))
    straight.ended(2)
    stopped.stopped(2, 1)
    stopped.ended(2)
    assert stopped.lines() == straight.lines()
    mine, theirs = stopped.tensors(), straight.tensors()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    frozen = [name for name in theirs if ".clip." in name or ".recogniser." in name]
    assert frozen == []
    export(stopped.output, tmp_path / "out")
    exported = load_representation(tmp_path / "out" / "encoder").state_dict()
    finished = load_representation(stopped.output / "encoder").state_dict()
    assert exported.keys() == finished.keys()
    assert all(torch.equal(exported[name], finished[name]) for name in finished)


def test_a_network_whose_file_is_missing_ends_every_rank_with_a_message(
    dataset: Path, tmp_path: Path
) -> None:
    message = Run(tmp_path, dataset, *FLOW, "representation.kind=arcface").refused(2)
    assert "representation.recogniser: 1 model file cannot be used" in message
    assert "arcface_r50" in message
    assert "mfhq models pull" in message
