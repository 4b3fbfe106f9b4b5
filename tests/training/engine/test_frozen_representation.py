"""A run with a frozen representation: nothing of it is trained, saved or changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import TINY
from trainers import Run

from training.engine.learner import Learner
from training.engine.processes import processes
from training.export import export, read_trained
from training.model import build_model
from training.representations.omniid import OmniIDEncoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(3)
    OmniIDEncoder(TINY).save_pretrained(folder)
    return folder


def test_it_is_in_neither_optimiser_nor_ema_and_steps_leave_it_as_it_is(encoder: Path, make_batch) -> None:
    from tiny_models import mtd_config

    section = {"size": "tiny", "weights": str(encoder), "frozen": True}
    config = mtd_config(representation=section, run={"precision": "fp32"}, batch=2)
    with processes(deterministic=False) as world:
        learner = Learner(build_model(config), config, world)
        state = learner.state()
        assert not any("representation." in name for name in state)
        trained = {name for name, weight in learner.model.named_parameters() if weight.requires_grad}
        assert {name.removeprefix("ema.") for name in state if name.startswith("ema.")} == trained
        assert all(name.startswith("decoders.mtd.") for name in trained)
        groups = learner.updates._adamw.param_groups
        assert sum(len(group["params"]) for group in groups) == len(trained)
        before = {name: weight.clone() for name, weight in learner.model.representation.state_dict().items()}
        query = learner.model.decoder("mtd").mask_token_D.detach().clone()
        for step in range(3):
            batch = make_batch(people=2, inputs=2, targets=1, seed=step)
            learner.learn(step, [batch], batch.target_count)
        after = learner.model.representation.state_dict()
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        assert not torch.equal(learner.model.decoder("mtd").mask_token_D, query)
        with learner.evaluating() as model:
            assert torch.equal(model.representation.query_LD, before["query_LD"])
        weights = learner.representation_weights()
    assert all(torch.equal(weights[name], weight) for name, weight in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_keeps_its_weights_out_of_checkpoints_and_in_its_export(
    encoder: Path, dataset: Path, tmp_path: Path, strategy: str
) -> None:
    frozen = (f"representation.weights={encoder}", "representation.frozen=true")
    run = Run(tmp_path / "run", dataset, *frozen, "steps=3", f"run.strategy={strategy}")
    run.stopped(2, 1)
    run.ended(2)
    names = {name.partition(".")[2] for name in run.tensors() if not name.startswith("optimiser.")}
    assert names
    assert all(name.startswith("decoders.mtd.") for name in names)
    expected = OmniIDEncoder.from_pretrained(encoder).state_dict()
    export(run.output, tmp_path / "out")
    exported = OmniIDEncoder.from_pretrained(tmp_path / "out" / "encoder").state_dict()
    own = OmniIDEncoder.from_pretrained(run.output / "encoder").state_dict()
    read = read_trained(run.output).of("representation.")
    for found in (exported, own, read):
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_a_dry_run_counts_it_apart(encoder: Path, dataset: Path, tmp_path: Path) -> None:
    frozen = (f"representation.weights={encoder}", "representation.frozen=true")
    said = Run(tmp_path, dataset, *frozen, "--dry-run").ended(1).log(0)
    count = sum(weight.numel() for weight in OmniIDEncoder(TINY).parameters())
    assert f"  {'frozen':<24} {count:>15,}" in said
    assert "  representation." not in said
