"""The sample grid of MTD: every tile shows what its caption says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sheets import STEP_PX, tile
from tiny_models import mtd_model

from training.data.batch import Batch
from training.evaluate.grid import sample_grid
from training.evaluate.sheet import CAPTION_PX, GAP_PX, LINE_PX, TILE_PX, make_sheet
from training.model import IdentityModel


def grid_of(
    model: IdentityModel, batch: Batch, rows: int, names: Iterable[str] | None = None
) -> NDArray[np.uint8]:
    with torch.no_grad():
        return sample_grid(model, batch, model.encode(batch), rows, names)


@pytest.fixture(scope="module")
def model() -> IdentityModel:
    return mtd_model().eval()


def test_rows_are_identities_and_columns_what_the_captions_say(model, flat) -> None:
    grid = grid_of(model, flat, rows=6)
    assert grid.dtype == np.uint8
    assert grid.shape == (CAPTION_PX + 2 * STEP_PX, GAP_PX + 6 * STEP_PX, 3)
    for row in range(2):
        for column in range(3):
            assert np.all(tile(grid, row, column) == 20 * column + 100 * row)
        assert np.all(tile(grid, row, 5) == 20 * 6 + 100 * row)
    assert (grid[:CAPTION_PX] < 128).any()


def test_of_the_target_only_the_visible_patches_are_shown(model, flat) -> None:
    seen = tile(grid_of(model, flat, rows=1), 0, 3)[..., 0]
    target = np.isclose(seen, 120, atol=3)
    # 3 of 64 patches; the rest is grey of 128, less what is smoothed at their edges.
    assert 0.02 < target.mean() < 0.06
    assert np.isclose(seen, 128, atol=3).mean() > 0.9


def test_the_reconstruction_is_shown_on_the_face_alone(model, flat) -> None:
    shown = tile(grid_of(model, flat, rows=1), 0, 4)
    assert np.all(shown[:10] == 128)
    middle = shown[TILE_PX // 2 - 10 : TILE_PX // 2 + 10, TILE_PX // 2 - 10 : TILE_PX // 2 + 10]
    with torch.no_grad():
        pred = model.decoder("mtd").reconstruct(flat, model.encode(flat)).pred_BNCSS[0, 0]
    assert abs(middle.mean() / 255 - pred[:, 28:36, 28:36].mean()) < 0.02


def test_no_more_rows_than_asked_for_and_none_of_damaged_samples(model, flat) -> None:
    assert grid_of(model, flat, rows=1).shape[0] == CAPTION_PX + STEP_PX
    damaged = replace(flat, valid_B=torch.tensor([False, True]))
    grid = grid_of(model, damaged, rows=2)
    assert grid.shape[0] == CAPTION_PX + STEP_PX
    assert np.all(tile(grid, 0, 0) == 100)


def test_the_place_of_a_missing_input_stays_empty(model, flat) -> None:
    padded = replace(flat, input_valid_BM=torch.tensor([[True, False, False], [True, True, True]]))
    grid = grid_of(model, padded, rows=2)
    assert np.all(tile(grid, 0, 1) == 255)
    assert np.all(tile(grid, 1, 1) == 120)


@pytest.mark.parametrize("caption", ["a caption of many words", "0-control-9fa9eda8b4-seed0"])
def test_captions_that_are_wider_than_a_tile_are_broken(caption: str) -> None:
    image = torch.zeros(3, 8, 8)
    short, long = (make_sheet([text, "b"], [[image, image]]) for text in ("a", caption))
    assert long.shape[0] == short.shape[0] + LINE_PX
    assert np.array_equal(long[CAPTION_PX + LINE_PX :], short[CAPTION_PX:])
    beside = long[: CAPTION_PX + LINE_PX, GAP_PX + TILE_PX : GAP_PX + STEP_PX]
    assert (beside == 255).all()
