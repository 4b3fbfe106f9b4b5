"""Flow runs in the trainer: real processes on a tiny FLUX, replicated or sharded, stopped and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import SCRATCH, write_transformer
from PIL import Image
from trainers import Run

from training.export import export, read_trained
from training.sampling.sampler import Sampler

pytestmark = pytest.mark.slow

FLOW = (
    "decoders.mtd=null",
    "decoders.flow.text_tokens=8",
    "decoders.flow.side=64",
    "decoders.flow.sample_steps=2",
    "decoders.flow.identity_dropout=0.25",
    "batch=2",
    "steps=4",
    "validation.every=4",
)
SHARDED = ("run.strategy=fsdp", "run.activation_checkpointing=0.5")


def flow_run(folder: Path, dataset: Path, flux: Path, prompts: Path, *overrides: str) -> Run:
    places = (f"decoders.flow.base={flux}", f"decoders.flow.prompt_cache={prompts}")
    return Run(folder, dataset, *FLOW, *places, *overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: Path, tiny_flux: Path, prompts: Path) -> Run:
    run = flow_run(tmp_path_factory.mktemp("trained"), dataset, tiny_flux, prompts)
    run.ended(2)
    return run


def test_a_run_goes_through_and_everything_learns(trained: Run) -> None:
    losses = trained.series("train/loss")
    assert len(losses) == 4
    assert all(np.isfinite(losses))
    assert trained.series("train/grad_norm")[-1] > 0
    assert set(trained.series("train/skipped")) == {0}
    figures = next(line for line in trained.lines() if "val/loss_own" in line)
    assert figures["val/loss_swapped"] > 0
    facts = read_trained(trained.output).facts
    assert facts.crop_scale == 1.3  # the data set's
    assert len(facts.flow_digest) == 32
    grid = np.asarray(Image.open(next((trained.output / "samples").glob("*.png"))))
    assert grid.std() > 10


def test_a_checkpoint_holds_what_is_trained_and_nothing_of_flux(trained: Run) -> None:
    tensors = trained.tensors()
    weights = {name.removeprefix("weights.") for name in tensors if name.startswith("weights.")}
    flow = {name.removeprefix("decoders.flow.") for name in weights if name.startswith("decoders.")}
    assert {name.split(".")[0] for name in weights} == {"representation", "decoders"}
    assert {name.split(".")[0] for name in flow} == {"projection", "transformer"}
    assert all("_ip." in name for name in flow if name.startswith("transformer."))
    assert {name.removeprefix("ema.") for name in tensors if name.startswith("ema.")} == weights
    moments = {name for name in tensors if name.startswith("optimiser.") and name.endswith(".exp_avg")}
    assert len(moments) == len(weights)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, dataset: Path, tiny_flux: Path, prompts: Path) -> Run:
    run = flow_run(tmp_path_factory.mktemp("sharded"), dataset, tiny_flux, prompts, *SHARDED)
    run.ended(2)
    return run


def test_sharded_it_is_the_same_run(trained: Run, sharded: Run) -> None:
    assert sharded.series("train/loss") == pytest.approx(trained.series("train/loss"), rel=1e-3)
    assert sharded.series("val/loss_own") == pytest.approx(trained.series("val/loss_own"), rel=1e-3)
    assert set(sharded.tensors()) == set(trained.tensors())


@pytest.mark.parametrize(("undisturbed", "how"), [("trained", ()), ("sharded", SHARDED)])
def test_stopped_and_resumed_it_is_the_same_run_to_the_bit(
    request: pytest.FixtureRequest, tmp_path: Path, undisturbed: str, how: tuple[str, ...]
) -> None:
    dataset, tiny_flux, prompts = map(request.getfixturevalue, ("dataset", "tiny_flux", "prompts"))
    expected: Run = request.getfixturevalue(undisturbed)
    run = flow_run(tmp_path, dataset, tiny_flux, prompts, *how)
    run.stopped(2, 1)
    run.ended(2)
    assert run.lines() == expected.lines()
    mine, theirs = run.tensors(), expected.tensors()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_in_bfloat16_flux_is_too(
    strategy: str, tmp_path: Path, dataset: Path, tiny_flux: Path, prompts: Path
) -> None:
    run = flow_run(
        tmp_path, dataset, tiny_flux, prompts, "run.precision=bf16", f"run.strategy={strategy}", "steps=2"
    )
    run.ended(2)
    assert all(np.isfinite(run.series("train/loss")))
    assert {str(value.dtype) for name, value in run.tensors().items() if name.startswith("weights.")} == {
        "torch.float32"
    }


@pytest.mark.parametrize("space", ["patch", "vae"])
def test_a_transformer_of_its_own_is_trained_resumed_and_exported_with_all_it_needs(
    tmp_path: Path, dataset: Path, tiny_flux: Path, space: str
) -> None:
    def run_with(vae: Path) -> Run:
        what = "patch: 4" if space == "patch" else f"vae: {vae}"
        scratch = f"decoders.flow.scratch={{layers: 1, single_layers: 1, heads: 2, head_width: 16, {what}}}"
        return Run(tmp_path / "run", dataset, *FLOW, "decoders.flow.side=16", scratch)

    here, there = tmp_path / "here" / "vae", tmp_path / "there" / "vae"
    shutil.copytree(tiny_flux / "vae", here)
    run_with(here).stopped(2, 1)
    there.parent.mkdir()
    here.rename(there)
    run = run_with(there)
    run.ended(2)
    export(run.output, tmp_path / "out")
    shutil.rmtree(there)
    trained = read_trained(tmp_path / "out")
    assert trained.facts.step == 4
    assert (tmp_path / "out" / "transformer" / "config.json").exists()
    portrait = np.zeros((512, 512, 3), dtype=np.uint8)
    sampler = Sampler.load(trained, torch.device("cpu"))
    (image,) = sampler.generate(sampler.encode([portrait]), [0])
    assert image.shape == (16, 16, 3)


def test_beside_a_frozen_small_transformer_the_adapter_is_trained_replicated_and_sharded(
    tmp_path: Path, dataset: Path
) -> None:
    transformer = write_transformer(tmp_path / "transformer")
    scratch = f"decoders.flow.scratch={json.dumps(SCRATCH | {'transformer': str(transformer)})}"

    def run_with(*how: str) -> Run:
        return Run(tmp_path / "-".join(("run", *how)), dataset, *FLOW, scratch, *how)

    copied, sharded = run_with(), run_with("run.strategy=fsdp")
    copied.ended(2)
    sharded.stopped(2, 1)
    sharded.ended(2)
    for series in ("train/loss", "val/loss_own"):
        assert sharded.series(series) == pytest.approx(copied.series(series), rel=1e-3)
    tensors = copied.tensors()
    assert set(sharded.tensors()) == set(tensors)
    kept = [name for name in tensors if name.startswith("weights.decoders.flow.transformer.")]
    assert kept
    assert all("_ip." in name for name in kept)
    moments = [tensors[f"optimiser.{name.removeprefix('weights.')}.exp_avg"] for name in kept]
    assert all(moment.abs().max() > 0 for moment in moments)

    images = []
    for run in (copied, sharded):
        export(run.output, run.folder / "export")
        sampler = Sampler.load(read_trained(run.folder / "export"), torch.device("cpu"))
        portrait = np.zeros((512, 512, 3), dtype=np.uint8)
        images += sampler.generate(sampler.encode([portrait]), [0])
    assert np.abs(np.subtract(*images, dtype=int)).max() <= 2


def test_a_flux_directory_without_a_part_ends_every_process_with_its_name(
    tmp_path: Path, dataset: Path, tiny_flux: Path, prompts: Path
) -> None:
    broken = Path(shutil.copytree(tiny_flux, tmp_path / "flux"))
    shutil.rmtree(broken / "vae")
    message = flow_run(tmp_path, dataset, broken, prompts).refused(2)
    assert "has no vae/config.json" in message


def test_what_the_dry_run_counts_is_what_is_trained(
    tmp_path: Path, dataset: Path, tiny_flux: Path, prompts: Path
) -> None:
    said = flow_run(tmp_path, dataset, tiny_flux, prompts, "--dry-run").ended(1).log(0)
    assert "dry run: nothing was written" in said
    assert "  frozen   " in said
    assert ", frozen weights " in said
    assert "decoders.flow.transformer" in said
    # K and V of two blocks: (24 + 1) x 32 each
    assert "3,200" in said
