"""A run with two decoders: the loss is their weighted sum, and stopped and resumed it gives the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainers import Run

from training.export import export, read_trained
from training.sampling.sampler import Sampler

pytestmark = pytest.mark.slow

BOTH = (
    "decoders.mtd.weight=1",
    "decoders.flow.weight=0.5",
    "decoders.flow.side=16",
    "decoders.flow.scratch={layers: 1, single_layers: 1, heads: 2, head_width: 16, patch: 4}",
    "decoders.flow.sample_steps=2",
    "batch=2",
    "steps=4",
    "validation.every=4",
)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Run:
    run = Run(tmp_path_factory.mktemp("joint"), dataset, *BOTH)
    run.ended(2)
    return run


def test_the_loss_is_the_weighted_sum_and_validation_measures_both(joint: Run) -> None:
    steps = [line for line in joint.lines() if "train/loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        expected = line["train/loss_mtd"] + 0.5 * line["train/loss_flow"]
        assert line["train/loss"] == pytest.approx(expected, rel=1e-6)
        assert line["train/loss_mtd"] > 0
        assert line["train/loss_flow"] > 0
    (validated,) = [line for line in joint.lines() if "val/damaged" in line]
    for decoder in ("mtd", "flow"):
        for figure in ("loss_own", "loss_one_input", "loss_swapped", "swap_ratio", "own_better"):
            assert np.isfinite(validated[f"val/{decoder}_{figure}"])
    assert "val/loss_own" not in validated
    assert "val/rankme" in validated


def test_representation_and_both_decoders_get_gradients(joint: Run) -> None:
    tensors = joint.tensors()
    names = [name.removeprefix("weights.") for name in tensors if name.startswith("weights.")]
    learned = {name for name in names if tensors[f"optimiser.{name}.exp_avg_sq"].abs().max() > 0}
    for part in (
        "representation.",
        "decoders.mtd.",
        "decoders.flow.projection.",
        "decoders.flow.transformer.",
    ):
        assert any(name.startswith(part) for name in learned), part
    # Biases of keys change no attention. Blocks of a scratch transformer are zero-initialised: some wait longer.
    waiting = [name for name in {*names} - learned if not name.endswith("bias")]
    assert all(name.startswith("decoders.flow.transformer.") for name in waiting), sorted(waiting)


def test_the_grid_shows_both_decoders(joint: Run) -> None:
    grid = np.asarray(Image.open(next((joint.output / "samples").glob("*.png"))))
    columns = 3 + 3 + 4  # inputs; visible patches, reconstruction, target; two samples, two targets
    assert grid.shape[1] // columns > 160
    assert grid.std() > 10


def test_stopped_and_resumed_it_gives_the_same_bits(joint: Run, dataset: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, dataset, *BOTH)
    run.stopped(2, 1)
    run.ended(2)
    assert run.lines() == joint.lines()
    assert run.encoder() == joint.encoder()
    mine, theirs = run.tensors(), joint.tensors()
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


def test_sharded_it_is_the_same_run(joint: Run, dataset: Path, tmp_path: Path) -> None:
    sharded = Run(tmp_path, dataset, *BOTH, "run.strategy=fsdp", "run.activation_checkpointing=0.5")
    sharded.ended(2)
    for name in ("train/loss_mtd", "train/loss_flow", "val/mtd_loss_own", "val/flow_loss_own"):
        assert sharded.series(name) == pytest.approx(joint.series(name), rel=1e-3)
    assert sharded.tensors().keys() == joint.tensors().keys()


def test_the_weight_of_a_decoder_is_part_of_what_a_resumed_run_must_agree_with(
    joint: Run, dataset: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, dataset, *BOTH)
    run.arguments[2] = f"output={joint.output}"
    assert "decoders.flow.weight: 0.5 -> 0.25" in run.refused(1, "decoders.flow.weight=0.25")
    assert "decoders.mtd" in run.refused(1, "decoders.mtd=null")


def test_its_export_generates_images(joint: Run, tmp_path: Path) -> None:
    facts = export(joint.output, tmp_path / "out")
    assert facts.flow is not None
    portrait = np.zeros((512, 512, 3), dtype=np.uint8)
    sampler = Sampler.load(read_trained(tmp_path / "out"), torch.device("cpu"))
    (image,) = sampler.generate(sampler.encode([portrait]), [0])
    assert image.shape == (16, 16, 3)
