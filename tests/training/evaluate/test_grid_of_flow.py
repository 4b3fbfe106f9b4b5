"""The sample grid of the flow decoder, and of several decoders: every tile shows what its caption says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from flow_runs import SCRATCH, as_trained, decoder_of, flow_config
from numpy.typing import NDArray
from sheets import STEP_PX, tile

from training.data.batch import Batch
from training.evaluate.grid import sample_grid
from training.evaluate.sheet import CAPTION_PX, GAP_PX
from training.model import IdentityModel, build_model


def grid_of(
    model: IdentityModel, batch: Batch, rows: int, names: Iterable[str] | None = None
) -> NDArray[np.uint8]:
    with torch.no_grad():
        return sample_grid(model, batch, model.encode(batch), rows, names)


@pytest.fixture(scope="module")
def model() -> IdentityModel:
    return as_trained(build_model(flow_config(None, None, {"side": 32, "sample_steps": 2})))


def test_rows_are_identities_and_columns_what_the_captions_say(model, flat) -> None:
    sheet = grid_of(model, flat, rows=6)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (CAPTION_PX + 2 * STEP_PX, GAP_PX + 7 * STEP_PX, 3)
    for row in range(2):
        shown = [0, 1, 2, None, None, 6, 7]  # three inputs, two samples, two targets
        for column, image in enumerate(shown):
            if image is not None:
                assert np.all(tile(sheet, row, column) == 20 * image + 100 * row)


def test_samples_are_of_the_identity_of_their_row_each_from_its_own_noise(model, flat) -> None:
    sheet = grid_of(model, flat, rows=2)
    images = [tile(sheet, row, column).astype(int) for row in range(2) for column in (3, 4)]
    for one in range(4):
        for other in range(one):
            assert np.abs(images[one] - images[other]).mean() > 3
    assert np.array_equal(grid_of(model, flat, rows=1), sheet[: CAPTION_PX + STEP_PX])
    decoder = decoder_of(model)
    sampling = decoder.sampling(32, 2, decoder.config.sample_guidance)
    image = decoder.sample(model.encode(flat).detach(), flat.seeds_B + 1, 32, sampling)[1]
    assert abs(images[3].mean() / 255 - image.clamp(0, 1).mean().item()) < 0.01


def test_damaged_samples_are_left_out_and_missing_inputs_leave_their_place_empty(model, flat) -> None:
    damaged = replace(
        flat,
        valid_B=torch.tensor([False, True]),
        input_valid_BM=torch.tensor([[True, True, True], [True, False, False]]),
    )
    sheet = grid_of(model, damaged, rows=2)
    assert sheet.shape[0] == CAPTION_PX + STEP_PX
    assert np.all(tile(sheet, 0, 0) == 100)
    assert np.all(tile(sheet, 0, 1) == 255)
    assert np.all(tile(sheet, 0, 5) == 20 * 6 + 100)


def test_several_decoders_show_their_columns_side_by_side(flat) -> None:
    flow = {"scratch": SCRATCH, "side": 32, "sample_steps": 2}
    both = build_model(flow_config(None, None, decoders={"mtd": {}, "flow": flow})).eval()
    sheet = grid_of(both, flat, rows=1)
    assert sheet.shape[1] == GAP_PX + (3 + 3 + 4) * STEP_PX
    one_by_one = [grid_of(both, flat, 1, names=[name]) for name in ("mtd", "flow")]
    assert [one.shape[1] for one in one_by_one] == [GAP_PX + 6 * STEP_PX, GAP_PX + 7 * STEP_PX]
    for column in range(3):
        assert np.array_equal(tile(sheet, 0, column), tile(one_by_one[0], 0, column))
    shown = [tile(one_by_one[0], 0, column) for column in (3, 4, 5)]
    shown += [tile(one_by_one[1], 0, column) for column in (3, 4, 5, 6)]
    for column, expected in enumerate(shown, 3):
        assert np.array_equal(tile(sheet, 0, column), expected)
