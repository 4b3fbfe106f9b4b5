"""What a run has learned, read from its checkpoints: also what it did not train, and whatever has moved since."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import as_trained, flow_config, write_run
from tiny_models import TINY, mtd_config

from training.decoders.mtd import MtdConfig
from training.engine.dcp import StoredTensors
from training.errors import TrainingError
from training.export import export, read_export, read_trained
from training.model import build_model
from training.representations.omniid import OmniIDEncoder
from training.sampling.sampler import Sampler
from training.trained import Trained, read_run


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    OmniIDEncoder(TINY).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def generated(trained: Trained, image: np.ndarray) -> np.ndarray:
    """An image of the person of whom this is one."""
    sampler = Sampler.load(trained, torch.device("cpu"))
    (found,) = sampler.generate(sampler.encode([image]), [0], steps=2)
    return found


@pytest.mark.parametrize("frozen", ["frozen", "frozen_tower"])
@pytest.mark.parametrize("decoder", ["mtd", "flow"])
def test_what_a_run_did_not_train_of_its_representation_comes_from_where_it_started(
    tmp_path: Path, encoder: Path, decoder: str, frozen: str
) -> None:
    """The checkpoint does not hold it; the export does."""
    section = {"size": "tiny", "weights": str(encoder), frozen: True}
    make = mtd_config if decoder == "mtd" else partial(flow_config, None, None)
    config = make(representation=section)
    model = build_model(config)
    with torch.no_grad():
        model.representation.query_LD += 1 if frozen == "frozen_tower" else 0  # as if it had been trained
    run = write_run(tmp_path / "run", config, model)
    export(run, tmp_path / "out")
    expected = model.representation.state_dict()
    for trained in (read_run(run), read_export(tmp_path / "out")):
        found = trained.of("representation.")
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    stored = StoredTensors(run / "checkpoints" / "step-000000003").read_metadata().state_dict_metadata
    assert not any("representation.clip." in name for name in stored)


@pytest.mark.parametrize("frozen", ["frozen", "frozen_tower"])
def test_a_run_with_frozen_parts_and_its_export_generate_the_same_image(
    tmp_path: Path, encoder: Path, frozen: str
) -> None:
    section = {"size": "tiny", "weights": str(encoder), frozen: True}
    config = flow_config(None, None, {"side": 32}, representation=section)
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    export(run, tmp_path / "out")
    portrait = np.full((512, 512, 3), 90, dtype=np.uint8)
    own, exported, other = (
        generated(read_trained(source), image)
        for source, image in ((run, portrait), (tmp_path / "out", portrait), (run, 2 * portrait))
    )
    assert np.array_equal(own, exported)
    assert not np.array_equal(own, other)


@pytest.mark.parametrize("decoder", ["mtd", "flow"])
def test_the_encoder_that_a_run_started_from_is_needed_no_more_once_it_is_trained(
    tmp_path: Path, encoder: Path, decoder: str
) -> None:
    make = mtd_config if decoder == "mtd" else partial(flow_config, None, None)
    config = make(representation={"size": "tiny", "weights": str(encoder)})
    model = build_model(config)
    run = write_run(tmp_path / "run", config, model)
    shutil.rmtree(encoder)
    export(run, tmp_path / "out")
    found = read_export(tmp_path / "out").of("representation.")
    expected = model.representation.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_frozen_encoder_that_is_another_one_now_is_refused(tmp_path: Path, encoder: Path) -> None:
    config = mtd_config(representation={"size": "tiny", "weights": str(encoder), "frozen": True})
    run = write_run(tmp_path / "run", config, build_model(config))
    OmniIDEncoder(TINY).save_pretrained(encoder)
    with pytest.raises(
        TrainingError, match=r"has other weights now than in training \(representation\.weights"
    ):
        export(run, tmp_path / "out")


def test_a_run_with_several_decoders_generates_images_too(tmp_path: Path) -> None:
    config = flow_config(None, None, {"side": 32})
    both = config.decoders.model_copy(update={"mtd": MtdConfig()})
    config = config.model_copy(update={"decoders": both})
    run = write_run(tmp_path / "run", config, as_trained(build_model(config)))
    portrait = np.zeros((512, 512, 3), dtype=np.uint8)
    assert generated(read_run(run), portrait).shape == (32, 32, 3)


def test_a_frozen_encoder_that_is_gone_is_named(tmp_path: Path, encoder: Path) -> None:
    config = mtd_config(representation={"size": "tiny", "weights": str(encoder), "frozen": True})
    run = write_run(tmp_path / "run", config, build_model(config))
    shutil.rmtree(encoder)
    with pytest.raises(TrainingError, match=rf"representation\.weights: there is no directory {encoder}"):
        read_run(run)


def test_the_newest_checkpoint_counts_and_unfinished_ones_do_not(tmp_path: Path) -> None:
    config = mtd_config()
    model = build_model(config)
    run = write_run(tmp_path, config, model, step=9)
    write_run(tmp_path, config, model, step=10)
    checkpoints = run / "checkpoints"
    unfinished = checkpoints / ".step-000000011.tmp-0123456789abcdef"
    shutil.copytree(checkpoints / "step-000000010", unfinished)
    assert read_run(run).facts.step == 10
