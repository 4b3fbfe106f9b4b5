"""The tower equals open_clip's, and runs on a subset of the patches."""

from __future__ import annotations

import open_clip
import pytest
import torch
from small_clip import TINY, whole_clip

from training.models.clip import CLIP_MEAN, CLIP_STD, ClipTower, from_patches, patches_shown, to_patches


@pytest.fixture
def tower() -> ClipTower:
    torch.manual_seed(0)
    return ClipTower(TINY)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, TINY.side, TINY.side, generator=torch.Generator().manual_seed(1))


def test_tokens_are_those_of_open_clip(tower: ClipTower, pixels: torch.Tensor) -> None:
    clip = whole_clip()
    clip.visual.output_tokens = True
    weights = {key: value for key, value in clip.visual.state_dict().items() if key != "proj"}
    tower.visual.load_state_dict(weights)
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    _, expected = clip.visual((pixels - mean) / std)
    tokens = tower(pixels)
    assert tokens.shape == (3, TINY.patches, TINY.width)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)


def test_constants_are_open_clip_s() -> None:
    assert open_clip.constants.OPENAI_DATASET_MEAN == CLIP_MEAN
    assert open_clip.constants.OPENAI_DATASET_STD == CLIP_STD


def test_every_parameter_gets_a_gradient(tower: ClipTower, pixels: torch.Tensor) -> None:
    tower(pixels, torch.tensor([[0, 5]] * 3)).square().sum().backward()
    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []
    untouched = [name for name, weight in tower.named_parameters() if not weight.grad.abs().any()]
    assert untouched == []


def test_the_indices_of_all_patches_give_all_tokens(tower: ClipTower, pixels: torch.Tensor) -> None:
    everything = torch.arange(TINY.patches).expand(3, -1)
    torch.testing.assert_close(tower(pixels, everything), tower(pixels), atol=1e-5, rtol=1e-5)


def test_masked_patches_do_not_change_visible_tokens(tower: ClipTower, pixels: torch.Tensor) -> None:
    visible = torch.tensor([[3, 17, 40], [0, 1, 63], [7, 8, 9]])
    shown = patches_shown(visible, TINY)[:, None].bool()
    changed = torch.where(shown, pixels, torch.full_like(pixels, torch.nan))
    assert torch.equal(tower(pixels, visible), tower(changed, visible))
    assert not torch.equal(tower(pixels, visible), tower(1 - pixels, visible))


def test_tokens_depend_on_the_position_of_their_patch(tower: ClipTower) -> None:
    grey = torch.full((1, 3, TINY.side, TINY.side), 0.4)
    first, last = tower(grey, torch.tensor([[0]])), tower(grey, torch.tensor([[63]]))
    assert (first - last).abs().max() > 0.01


def test_patches_are_in_row_major_order_and_invertible(pixels: torch.Tensor) -> None:
    patches = to_patches(pixels, TINY.patch)
    assert patches.shape == (3, TINY.patches, 3 * TINY.patch**2)
    second_of_third_row = pixels[0, :, 2 * TINY.patch : 3 * TINY.patch, TINY.patch : 2 * TINY.patch]
    assert torch.equal(patches[0, 2 * TINY.grid + 1], second_of_third_row.flatten())
    assert torch.equal(from_patches(patches, TINY.patch), pixels)


def test_visible_patches_are_squares_at_their_positions() -> None:
    shown = patches_shown(torch.tensor([[0, 9]]), TINY)
    expected = torch.zeros(1, TINY.side, TINY.side)
    expected[0, :8, :8] = 1
    expected[0, 8:16, 8:16] = 1
    assert torch.equal(shown, expected)


def test_tokens_in_bfloat16_are_close_to_float32(tower: ClipTower, pixels: torch.Tensor) -> None:
    exact = tower(pixels)
    rough = tower.bfloat16()(pixels)
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().mean() < 0.02
