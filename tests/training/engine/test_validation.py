"""Validation: which held-out identities are measured, what is reported of them, and what the grid shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SCRATCH
from tiny_models import mtd_config

from training.config import Config
from training.data.batch import Batch
from training.data.dataset import StreamedDataset, open_dataset
from training.engine.collectives import Collectives
from training.engine.processes import World, processes
from training.engine.validation import Validated, Validator
from training.evaluate.sheet import CAPTION_PX, GAP_PX, TILE_PX
from training.model import IdentityModel, build_model

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import small_data

HELD_OUT = ("anna_0", "anna_1", "berta_0", "clara_0", "dora_0")
"""Five identities of four persons."""
STEP_PX = TILE_PX + GAP_PX


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data.build(tmp_path_factory.mktemp("data") / "mfhq", test=HELD_OUT)


@pytest.fixture
def world() -> Iterator[World]:
    with processes(deterministic=False) as joined:
        yield joined


class Counting(StreamedDataset):
    """The real dataset, which notes whose samples are read."""

    read_keys: list[str]

    def fetch(self, key: str, stopped: Any = None) -> Any:
        self.read_keys.append(key)
        return super().fetch(key, stopped)


def validated(
    world: World, root: Path, messages: list[str] | None = None, **changes: Any
) -> tuple[Validated, list[str]]:
    """The figures of a model with random weights, and the keys of the samples that were read for them."""
    run = {"per_process": 2, "precision": "fp32"}
    config: Config = mtd_config(data={"root": str(root)}, run=run, **changes)
    dataset: Any = open_dataset(str(root), retry_s=1.0)
    dataset.__class__ = Counting
    dataset.read_keys = []
    model = build_model(config).eval()
    validator = Validator(
        config,
        dataset,
        model.needs,
        Collectives(world),
        stopping=lambda: False,
        message=(messages if messages is not None else []).append,
    )
    found = validator.validate(model, nullcontext)
    assert found is not None
    return found, dataset.read_keys


def rows_of(found: Validated) -> int:
    assert found.grid_HWC is not None
    rows, rest = divmod(found.grid_HWC.shape[0] - CAPTION_PX, STEP_PX)
    assert rest == 0
    return rows


def test_all_held_out_identities_are_measured_and_the_grid_has_a_row_a_person(
    world: World, root: Path
) -> None:
    found, read = validated(world, root)
    assert set(read) == set(HELD_OUT)
    assert rows_of(found) == 4
    assert {"val/loss_own", "val/loss_swapped", "val/swap_ratio_low", "val/rankme"} <= set(found.figures)
    assert found.figures["val/damaged"] == 0
    assert 1 <= found.figures["val/rankme"] <= 4
    assert 0.01 < abs(found.figures["val/token_similarity"]) < 0.999


def test_no_more_identities_and_rows_than_are_asked_for(world: World, root: Path) -> None:
    found, read = validated(world, root, validation={"identities": 3, "grid_persons": 1})
    assert set(read) == set(HELD_OUT[:3])
    assert rows_of(found) == 1


def test_figures_of_several_decoders_are_told_apart_by_their_names(world: World, root: Path) -> None:
    decoders = {"mtd": {}, "flow": {"scratch": SCRATCH, "side": 16, "sample_steps": 1}}
    found, _ = validated(world, root, decoders=decoders)
    names = {name.removeprefix("val/") for name in found.figures}
    assert {"mtd_loss_own", "flow_loss_own", "mtd_swap_ratio", "flow_swap_ratio", "damaged"} <= names
    assert not {"loss_own", "swap_ratio"} & names
    alone, _ = validated(world, root)
    assert found.figures["val/mtd_loss_own"] == pytest.approx(alone.figures["val/loss_own"], rel=1e-5)


@pytest.mark.parametrize("decoders", [1, 2])
def test_each_batch_is_encoded_once_whatever_the_number_of_decoders(
    world: World, root: Path, decoders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once from all inputs and once from the first: for the losses, RankMe and the grid of all decoders."""
    counted: list[int | None] = []
    encode = IdentityModel.encode

    def counting(model: IdentityModel, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        counted.append(most_inputs)
        return encode(model, batch, most_inputs)

    monkeypatch.setattr(IdentityModel, "encode", counting)
    flow = {"scratch": SCRATCH, "side": 16, "sample_steps": 1}
    found, _ = validated(world, root, decoders=dict(list({"mtd": {}, "flow": flow}.items())[:decoders]))
    assert found.grid_HWC is not None
    assert counted == [None, 1] * 3  # five identities, two in a batch


def test_inputs_and_targets_of_training_do_not_change_the_figures(world: World, root: Path) -> None:
    """So figures of runs that train on other numbers of images can be compared."""
    usual, _ = validated(world, root)
    other_data = {"root": str(root), "inputs": [1, 5], "targets": 2}
    run = {"per_process": 2, "precision": "fp32"}
    config = mtd_config(data=other_data, run=run, decoders={"mtd": {"mask_ratio": 0.5}})
    model = build_model(config).eval()
    dataset = open_dataset(str(root), retry_s=1.0)
    validator = Validator(
        config, dataset, model.needs, Collectives(world), stopping=lambda: False, message=lambda _: None
    )
    found = validator.validate(model, nullcontext)
    assert found is not None
    assert found.figures == pytest.approx(usual.figures, rel=1e-5)


def test_damaged_identities_are_left_out_counted_and_named_once(world: World, tmp_path: Path) -> None:
    root = small_data.build(tmp_path / "mfhq", test=HELD_OUT)
    small_data.flip_byte(root / "test/mfhq-test-000000-g0000.tar", 2000)
    messages: list[str] = []
    found, _ = validated(world, root, messages)
    assert found.figures["val/damaged"] == 1
    assert len(messages) == 1
    assert messages[0].startswith("skipped in validation: sample anna_0")
    assert rows_of(found) == 4  # anna's other identity is shown


def test_without_undamaged_identities_nothing_is_measured(world: World, tmp_path: Path) -> None:
    root = small_data.build(tmp_path / "mfhq", test=HELD_OUT[:2])
    for shard in (root / "test").glob("*.tar"):
        for offset in range(1000, shard.stat().st_size, 5000):
            small_data.flip_byte(shard, offset)
    messages: list[str] = []
    found, _ = validated(world, root, messages)
    assert found.figures == {"val/damaged": 2}
    assert found.grid_HWC is None
    assert messages[-1] == "nothing is measured: all held-out identities are damaged"


def test_without_a_test_split_there_is_nothing(world: World, tmp_path: Path) -> None:
    found, read = validated(world, small_data.build(tmp_path / "mfhq", test=[]))
    assert found == Validated({}, None)
    assert read == []
