"""The sample grid of the second stage: every tile shows what its caption says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flow_runs import as_trained, flow_config, flow_stage
from sheets import STEP_PX, tile

from training.evaluate.flow_grid import flow_grid
from training.evaluate.sheet import CAPTION_PX, GAP_PX
from training.models.flow import FlowStage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stage() -> FlowStage:
    return as_trained(flow_stage(flow_config(None, None, {"side": 32, "sample_steps": 2})))


def test_rows_are_identities_and_columns_what_the_captions_say(stage, flat) -> None:
    sheet = flow_grid(stage, flat, CPU, rows=6)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (CAPTION_PX + 2 * STEP_PX, GAP_PX + 7 * STEP_PX, 3)
    for row in range(2):
        shown = [0, 1, 2, None, None, 6, 7]  # three inputs, two samples, two targets
        for column, image in enumerate(shown):
            if image is not None:
                assert np.all(tile(sheet, row, column) == 20 * image + 100 * row)


def test_samples_are_those_of_the_person_from_noise_of_their_own(stage, flat) -> None:
    sheet = flow_grid(stage, flat, CPU, rows=2)
    images = [tile(sheet, row, column).astype(int) for row in range(2) for column in (3, 4)]
    for one in range(4):
        for other in range(one):
            assert np.abs(images[one] - images[other]).mean() > 3
    assert np.array_equal(flow_grid(stage, flat, CPU, rows=1), sheet[: CAPTION_PX + STEP_PX])
    tokens = stage.identify(flat).detach()
    way = stage.way(32, 2, stage.flow.sample_guidance)
    drawn = stage.sample(tokens, flat.seeds_B + 1, 32, way)[1]
    assert abs(images[3].mean() / 255 - drawn.clamp(0, 1).mean().item()) < 0.01


def test_damaged_samples_are_left_out_and_missing_inputs_leave_their_place_empty(stage, flat) -> None:
    damaged = replace(
        flat,
        valid_B=torch.tensor([False, True]),
        input_valid_BM=torch.tensor([[True, True, True], [True, False, False]]),
    )
    sheet = flow_grid(stage, damaged, CPU, rows=2)
    assert sheet.shape[0] == CAPTION_PX + STEP_PX
    assert np.all(tile(sheet, 0, 0) == 100)
    assert np.all(tile(sheet, 0, 1) == 255)
    assert np.all(tile(sheet, 0, 5) == 20 * 6 + 100)
